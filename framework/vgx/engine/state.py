"""The state of networks and optimizers as named tensors, for checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from vgx.engine.losses import PlayerName
from vgx.engine.optimizers import laid_out, unwrapped
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
        state = unwrapped(player.optimizer.state_dict)()
        groups = [{k: v for k, v in g.items() if k != "params"} for g in state["param_groups"]]
        numbers: dict[str, Any] = {}
        for index, values in state["state"].items():
            for key, value in values.items():
                kept = tensors if isinstance(value, Tensor) else numbers
                kept[f"{player.name}/{names[index]}/{key}"] = value
        plain[player.name] = {"groups": groups, "values": numbers}
    return tensors, plain


def load_optimizers(
    players: dict[PlayerName, Player], tensors: dict[str, Tensor], plain: dict[str, Any]
) -> None:
    """Load the optimizers' states, each tensor in the memory layout of its parameter.

    Raises `KeyError` or `ValueError` for a state of another player or parameter.
    """
    states: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in players}
    numbers = [plain[name]["values"] for name in players]
    for values in (tensors, *numbers):
        for address, value in values.items():
            owner, _, rest = address.partition("/")
            name, _, key = rest.rpartition("/")
            names = [*players[owner].trained]
            states[owner].setdefault(names.index(name), {})[key] = value
    for player in players.values():
        new = unwrapped(player.optimizer.state_dict)()["param_groups"]
        both = zip(plain[player.name]["groups"], new, strict=True)
        groups = [_group(old, group) for old, group in both]
        state = {"state": states[player.name], "param_groups": groups}
        unwrapped(player.optimizer.load_state_dict)(state)
        for parameter, kept in player.optimizer.state.items():
            for key, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    kept[key] = laid_out(value, parameter)


def _group(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a checkpoint for the parameters of an optimizer.

    A setting that another version of PyTorch did not have keeps its value. Raises `ValueError` for
    a value that no such setting can have.
    """
    for key in new.keys() & old.keys() - {"params"}:
        numbers = [v if isinstance(v, list | tuple) else [v] for v in (old[key], new[key])]
        kinds = [[isinstance(v, int | float) for v in values] for values in numbers]
        if None not in (old[key], new[key]) and kinds[0] != kinds[1]:
            raise ValueError(f"{key} of an optimizer is {old[key]!r}")
    return {**new, **old, "params": new["params"]}
