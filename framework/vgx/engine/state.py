"""The state of networks and optimizers as named tensors, for checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from vgx.engine.optimizers import laid_out
from vgx.engine.players import Player
from vgx.runs.checkpoint import under

# Tensors of an optimizer are saved as "player/parameter/key". Names of parameters may have slashes.


def network_tensors(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Return the parameters and buffers of networks by name."""
    return {
        f"{name}.{key}": tensor
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


def load_networks(networks: dict[str, nn.Module], tensors: dict[str, Tensor]) -> None:
    """Load exactly these tensors. Raises `KeyError` for one that is missing.

    BatchNorm itself would make up a missing count of batches.
    """
    for name, network in networks.items():
        own = under(tensors, name)
        if missing := sorted(network.state_dict().keys() - own.keys()):
            raise KeyError(missing[0])
        network.load_state_dict(own)


def optimizer_tensors(players: Iterable[Player]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the optimizers' tensors, and their settings and plain numbers by player."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for player in players:
        names = [*player.trained]
        state = player.optimizer.state_dict()
        groups = [{k: v for k, v in g.items() if k != "params"} for g in state["param_groups"]]
        numbers: dict[str, Any] = {}
        for index, values in state["state"].items():
            for key, value in values.items():
                kept = tensors if isinstance(value, Tensor) else numbers
                kept[f"{player.name}/{names[index]}/{key}"] = value
        plain[player.name] = {"groups": groups, "values": numbers}
    return tensors, plain


def load_optimizer(player: Player, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Take up an optimizer's state, each tensor in the memory layout of its parameter."""
    names = [*player.trained]
    state: dict[int, dict[str, Any]] = {}
    for address, value in {**tensors, **plain[player.name]["values"]}.items():
        owner, _, rest = address.partition("/")
        if owner == player.name:
            name, _, key = rest.rpartition("/")
            state.setdefault(names.index(name), {})[key] = value
    new = player.optimizer.state_dict()["param_groups"]
    groups = [
        {**old, "params": group["params"]}
        for old, group in zip(plain[player.name]["groups"], new, strict=True)
    ]
    player.optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in player.optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = laid_out(value, parameter)
