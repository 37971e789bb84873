"""What docs/safety.md promises: each of its sentences, and the tests that hold it."""

# ruff: noqa: E501 - a row of a table is a line
from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import vgx
from vgx.check.hidden_state import state_of
from vgx.engine import memory
from vgx.errors import RecipeError

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "safety.md"

# The beginning of each sentence, row or item, and the tests that hold it.
HELD = {
    "What vgx does with files": "each_sentence_has_its_tests",
    "For each sentence on this page": "each_sentence_has_its_tests",
    # What is code
    "The package of a plugin is code": "an_installed_part_knows_where_it_came_from a_file_is_a_plugin_too",
    "Both are executed": "the_guard_sees_what_it_should",
    "A run keeps copies": "a_plugin_file_trains_and_its_run_stands_alone",
    "So a run from somebody else": "the_programs_are_real",
    "`vgx list`, `vgx compare` and `vgx explain RUN` only look": "looking_executes_nothing",
    "They also work where the plugins": "looking_works_where_nothing_is_installed",
    "`vgx sample`, `vgx eval`, `vgx report`, `vgx watch`, `vgx explore`": (
        "using_is_refused_and_says_what python_refuses_it_too "
        "a_strangers_run_executes_nothing_and_lends_no_file"
    ),
    "They execute the files in its": "using_is_refused_and_says_what",
    "You gave the file to": "a_training_notes_what_it_was_given",
    "Then the SHA-256 of its bytes": (
        "a_training_notes_what_it_was_given what_is_noted_is_executed_and_a_changed_or_added_file_is_not"
    ),
    "The same bytes are trusted": (
        "the_same_bytes_are_trusted_in_another_run a_training_notes_what_it_was_given"
    ),
    "You answer yes": "at_a_terminal_it_is_asked",
    "It shows the name, the size": "the_question_in_a_real_terminal at_a_terminal_it_is_asked",
    "It is asked only when": "without_a_terminal_nothing_is_asked",
    "You give `--trust-plugins`": ("a_flag_trusts_it_for_one_command python_trusts_it_for_good"),
    "Else the command ends with exit code 3": (
        "a_file_that_nobody_gave_is_refused_by_name_size_and_sum"
    ),
    "Nothing of the run is executed or changed": "using_is_refused_and_says_what",
    "A file that was changed": "what_is_noted_is_executed_and_a_changed_or_added_file_is_not",
    "The bytes that are executed": (
        "what_is_checked_is_what_is_executed the_copy_in_a_run_is_what_was_executed "
        "an_edit_within_size_and_time_runs_the_new_code"
    ),
    "Bytecode, in": "bytecode_beside_a_file_is_never_executed",
    "Files whose names do not end": (
        "files_are_sorted_and_others_are_not_read what_is_no_plugin_file_is_never_executed"
    ),
    "Hidden files, links, folders": (
        "what_no_run_contains_is_refused files_that_no_run_contains_are_not_even_asked_about"
    ),
    "So are more than 100": (
        "what_no_run_contains_is_refused a_folder_that_is_a_link_or_a_file_is_refused"
    ),
    "The command `vgx` imports nothing": "the_folder_in_which_vgx_is_started_is_not_imported_from",
    "`python -m vgx` does": "the_folder_in_which_vgx_is_started_is_not_imported_from",
    # What is data
    "Nothing else is executed": "nothing_else_in_a_run_is_executed",
    "| recipes, `--set`": (
        "no_recipe_names_what_is_executed a_tag_is_refused_at_its_place "
        "an_alias_is_refused_where_it_is_used"
    ),
    "| checkpoints": (
        "no_checkpoint_gets_anything_executed every_change_is_noticed_and_the_one_before_is_used"
    ),
    "| what samplers learned": (
        "nothing_that_a_sampler_learned_is_executed damage_of_what_a_sampler_learned_is_noticed"
    ),
    "| weights of `start`": (
        "a_file_of_a_false_size_is_refused_before_it_is_read "
        "a_prior_of_a_false_size_is_refused_before_it_is_read "
        "weights_of_a_false_size_are_refused_before_they_are_read"
    ),
    "| trained priors": (
        "a_damaged_prior_costs_the_prior_alone a_folder_of_latents_of_a_stranger_is_refused"
    ),
    "| logs and the other files": (
        "nothing_else_in_a_run_is_executed no_file_of_a_run_costs_more_than_itself "
        "no_value_in_a_file_of_a_run_costs_more what_is_no_file_of_a_run_is_not_waited_for"
    ),
    "| [studies of sweeps]": (
        "values_that_no_worker_has_written_are_an_error_of_the_storage "
        "what_is_no_file_of_a_study_is_refused_and_not_waited_for it_is_read_as_it_was_written"
    ),
    "| pretrained weights": "pretrained_weights_are_safetensors_or_refused",
    "| other people's weights": "no_pt_file_gets_anything_executed nothing_executes_what_it_reads",
    "A file of a run that cannot": "the_field_is_named no_file_of_a_run_costs_more_than_itself",
    "One damaged run": "no_file_of_a_run_costs_more_than_itself",
    "A line of a log": (
        "a_bad_line_is_passed_over_and_kept_aside a_damaged_log_costs_only_its_damaged_lines"
    ),
    "All text that vgx shows": "nothing_is_shown_that_a_terminal_obeys",
    "Pickle, `eval`, `exec`": "nothing_executes_what_it_reads executing_would_be_seen",
    # Where a recipe goes
    "A recipe names a data set": "opening_is_seen_and_said_before",
    "A sampler may name a folder": "opening_is_seen_and_said_before",
    "`vgx list`, `vgx compare`, `vgx explain RUN` and `vgx report` open": (
        "looking_opens_no_data_and_asks_nobody a_page_opens_no_images_of_a_sampler"
    ),
    "A page shows training images only": (
        "the_page_of_a_run_is_drawn_from_the_cache an_evaluation_fills_the_cache_again"
    ),
    "`vgx run`, `vgx check`, `vgx eval`, `vgx resume`, `vgx fork` and `vgx replay` print": (
        "opening_is_seen_and_said_before a_check_says_where_it_goes_before_it_does"
    ),
    "They also print which images": "a_check_says_where_it_goes_before_it_does",
    "`vgx run`, `vgx resume` and `vgx fork` open": "where_it_sends_is_said_before_it_is_opened",
    "Each is printed with its fields": "where_it_sends_is_said_before_it_is_opened",
    "`vgx sample` opens images only": (
        "a_recipe_of_this_machine_asks_nobody opening_is_seen_and_said_before"
    ),
    "A notice names them first": "opening_is_seen_and_said_before",
    "The first page of `vgx explore` lets npm": "the_engine_is_fetched_once_and_is_a_plain_script",
    "Only an archive with": "another_archive_is_refused_and_nothing_of_it_is_kept",
    "The hub is asked with your token": "opening_is_seen_and_said_before",
    "Networks that are loaded": "looking_opens_no_data_and_asks_nobody",
    "With `--offline`": "a_recipe_of_this_machine_asks_nobody",
    # Where vgx writes
    "In a run, vgx writes only": "what_leads_out_of_a_run_is_refused",
    "A link, a pipe or a device": (
        "a_run_that_leads_elsewhere_is_not_trained_in what_leads_out_of_a_run_is_refused"
    ),
    "A file that lines are appended": "a_second_name_of_somebodys_file_is_not_appended_to",
    "Trackers may make links": "trackers_may_link_to_files_of_their_own",
    "The run itself, and the folder": "the_run_and_the_folder_of_runs_may_be_links",
    "`vgx rm` removes runs alone": "what_is_no_run_stays",
    "Of a link in a run": "links_in_a_run_are_removed_and_not_what_they_lead_to",
    "A fork only reads": "an_unchanged_fork_equals_its_parent_to_the_bit",
    "What it copies is read": "a_strangers_run_executes_nothing_and_lends_no_file",
    "So a link in the parent": "a_strangers_run_executes_nothing_and_lends_no_file",
    "`--out` and `--svg` follow": (
        "what_is_written_to_stays_what_it_is a_link_stays_a_link_and_the_file_behind_it_is_replaced"
    ),
    "A device or a pipe is written": "what_is_written_to_stays_what_it_is",
    "A folder, a socket": "what_cannot_be_written_to_is_refused_before_anything_is_drawn",
    "So is a link in the folder": "no_image_of_its_own_folder_leads_elsewhere",
    # What is trained on
    "The SHA-256 sums of a store": (
        "damage_of_any_file_of_a_store_is_noticed_and_cured "
        "any_bit_of_any_file_is_noticed_and_the_store_is_made_again"
    ),
    "The images are hashed once": (
        "images_are_hashed_once images_are_hashed_again_when_anything_about_them_changed "
        "all_images_are_hashed_whatever_the_stamp_says"
    ),
    "A damaged store is made again": "damage_of_any_file_of_a_store_is_noticed_and_cured",
    "So are the features": "damaged_features_are_noticed_and_computed_again",
    "Other content under": "content_under_the_same_names_sizes_and_times_is_noticed",
    "A link in place of a store": ("a_store_that_is_a_link_is_replaced_and_what_it_leads_to_stays"),
    "A store that would be larger": "data_sets_beyond_the_bound_are_refused_before_decoding",
    "A local data set opens": "nothing_outside_is_read_asked_or_awaited",
    "A notice names a link": "a_link_that_leads_nowhere_is_a_bad_file_until_it_leads_somewhere",
    "Programs, and tables": "nothing_outside_is_read_asked_or_awaited",
    "A row of a data set": "rows_of_the_hub_name_no_file_outside_of_its_caches",
    "A pipe or a device in place": (
        "nothing_outside_is_read_asked_or_awaited "
        "no_file_of_weights_is_waited_for_or_read_without_end"
    ),
    "Of a TIFF file the pages": (
        "a_description_leads_to_no_other_file a_small_file_takes_little_memory"
    ),
    # Models that come in
    "An exported folder, a model of the hub": (
        "a_pickle_is_never_read programs_beside_a_model_are_not_executed"
    ),
    "Of them only files with known names": (
        "a_list_of_files_that_is_not_as_written_is_refused what_is_not_as_it_was_exported_is_not_loaded "
        "a_file_that_is_not_as_written_is_refused other_networks_are_refused"
    ),
    "A name in `vgx.json` that is no file": "a_list_of_files_that_is_not_as_written_is_refused",
    "Pickle files are not read": (
        "a_pickle_is_never_read what_is_not_as_it_was_exported_is_not_loaded"
    ),
    "Of a folder of diffusers": (
        "weights_in_other_files_are_refused an_autoencoder_that_is_none_is_not_fetched "
        "what_is_not_as_the_hub_lists_it_is_not_kept"
    ),
    "They are verified again": "an_autoencoder_of_diffusers_is_fetched_once_and_verified",
    '`vgx.load("OWNER/NAME")` reads no more': "what_is_not_as_it_was_exported_is_not_loaded",
    "Your token goes to the hub": "the_token_goes_to_the_hub_alone",
    # Models that leave
    "`vgx export` writes no path": (
        "no_file_names_a_path_a_host_or_a_user the_folder_has_these_files_and_gives_the_same_bits"
    ),
    "Drawn images are not made of": "the_images_are_drawn_and_are_no_training_images",
    "`vgx push` uploads the listed files": "what_is_pushed_is_what_is_loaded",
    "The token is written into no file": (
        "a_hub_that_refuses_gets_no_token_into_a_message what_is_pushed_is_what_is_loaded"
    ),
    # Other people's .pt files
    "Files that `torch.save` wrote": "the_payloads_are_real",
    "This command reads them": (
        "no_pt_file_gets_anything_executed "
        "the_switch_of_pytorch_that_allows_pickles_changes_nothing"
    ),
    "There is no fallback": "anything_else_is_refused_and_writes_nothing",
    "The tensors may be": "weights_are_found_and_stay_what_they_are averaged_weights_go_before_others",
    "Otherwise the error lists": "anything_else_is_refused_and_writes_nothing",
    "If there are tensors under several keys": (
        "averaged_weights_go_before_others the_tensors_under_another_key_can_be_had_too"
    ),
    "A prefix of wrappers": "names_of_wrappers_are_taken_off a_name_that_only_some_have_stays",
    "At most 20,000 tensors": "more_tensors_than_a_network_may_have_are_refused",
    "What was written is read": "a_name_that_could_not_be_read_again_is_refused",
    "An archive is refused": (
        "an_archive_that_grows_is_refused_before_it_is_read "
        "anything_else_is_refused_and_writes_nothing no_pt_file_gets_anything_executed"
    ),
    # What a recipe cannot ask for
    "Each of these is an error": "what_has_hurt_others_is_refused_quickly",
    "a file longer than": (
        "what_has_hurt_others_is_refused_quickly the_number_of_values_is_capped "
        "recipes_on_top_of_each_other_end_somewhere a_file_without_end_is_not_read_to_its_end"
    ),
    "a text of more than": "what_has_hurt_others_is_refused_quickly",
    "an integer of more": "what_has_hurt_others_is_refused_quickly",
    "Before a network is made": "networks_that_fit_no_machine_are_refused_before_they_are_made",
    "A network is refused by name": (
        "networks_that_fit_no_machine_are_refused_before_they_are_made too_many_tensors_are_refused"
    ),
    "When memory runs out": "memory_that_runs_out_is_said_with_what_helps",
    "`name` may have": "no_name_leads_out_of_the_folder_of_runs",
    "No name of a run": "no_name_of_a_run_or_a_sampler_leads_out no_other_name_leads_anywhere",
    "Tokens and passwords": "no_secret_of_the_environment_is_kept_in_a_run",
    # Parts that break
    "| it cannot be imported": "a_broken_plugin_is_recorded_and_stops_only_who_needs_it",
    "| it raises an error": (
        "a_loss_that_breaks_at_step_7_is_named a_fault_is_named_before_the_first_step "
        "a_part_that_fails_after_the_training_is_named_with_its_line"
    ),
    "| its loss is no scalar": "a_loss_that_breaks_at_step_7_is_named",
    "| its loss is complex": "a_part_that_misbehaves_is_named",
    "| it changes a setting": "a_part_that_misbehaves_is_named",
    "| its loss or a gradient": (
        "a_loss_that_is_no_number_at_step_7_is_named nobody_moves_in_a_step_that_is_not_finite "
        "what_is_not_finite_is_not_saved"
    ),
    "| an image of its data set": "a_data_set_that_raises_names_the_picture_and_leaves_no_run",
    "| it raises `SystemExit`": "a_part_that_misbehaves_is_named a_real_ctrl_c_is_none_of_them",
    "| it keeps state": "state_that_no_checkpoint_holds_is_refused_before_the_first_step",
    "The last checkpoint is whole": (
        "a_loss_that_breaks_at_step_7_is_named a_loss_that_is_no_number_at_step_7_is_named"
    ),
    "Hidden state is looked for": (
        "state_that_no_checkpoint_holds_is_refused_before_the_first_step"
    ),
    "Numbers, texts, tensors": "plain_state_is_compared_by_value_and_no_other",
    "Weights and buffers may change": (
        "buffers_and_what_is_filled_in_once_are_no_hidden_state "
        "plain_state_is_compared_by_value_and_no_other"
    ),
    "An attribute that was `None`": "buffers_and_what_is_filled_in_once_are_no_hidden_state",
    "State in other objects": "plain_state_is_compared_by_value_and_no_other",
    "A module that only counts": "what_is_meant_can_be_allowed",
}


def sentences():
    """The sentences, list items and rows of tables of the page, without code and headings."""
    text = re.sub(
        r"^```.*?^```$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for block in re.split(r"\n\s*\n|\n(?=- )|\n(?=\|)", text):
        line = " ".join(block.split()).removeprefix("- ")
        if line.startswith("|"):
            if not re.match(r"\|(---| what )", line) or line.startswith("| what samplers"):
                yield line
        elif line and not line.startswith("#"):
            yield from re.split(r"(?<=[.])\s+(?=[A-Z`])", line)


def names_of_tests():
    texts = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    return {name for text in texts for name in re.findall(r"^def test_(\w+)\(", text, re.MULTILINE)}


def test_each_sentence_has_its_tests():
    found = [
        [start for start in HELD if sentence.startswith(start)] or [sentence]
        for sentence in sentences()
    ]
    assert [each for each in found if len(each) != 1 or each[0] not in HELD] == []
    listed = [each[0] for each in found]
    assert listed == list(HELD)  # each once, in the order of the page
    assert {name for names in HELD.values() for name in names.split()} - names_of_tests() == set()


def test_a_sentence_without_a_test_would_be_seen(monkeypatch, tmp_path):
    page = tmp_path / "safety.md"
    page.write_text(PAGE.read_text(encoding="utf-8") + "\nNobody ever tested this.\n")
    monkeypatch.setitem(globals(), "PAGE", page)
    with pytest.raises(AssertionError, match="Nobody ever tested this"):
        test_each_sentence_has_its_tests()


# --- what no other file tests --------------------------------------------------------------------


def test_too_many_tensors_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "MAX_TENSORS", 6)
    with memory.MemoryLimit("encoder"):
        nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    with (
        pytest.raises(RecipeError, match="encoder: more than 6 tensors"),
        memory.MemoryLimit("encoder"),
    ):
        nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))


COUNTS = [0]


class Keeps(nn.Module):
    """A module that keeps something of each kind."""

    def __init__(self, change):
        super().__init__()
        self.number, self.text, self.tensor = 1, "a", torch.zeros(2)
        self.array, self.listed = torch.zeros(2).numpy(), [1, {"a": 2}]
        self.random, self.other = torch.Generator().manual_seed(0), Exception("other")
        self.register_buffer("buffer", torch.zeros(1))
        change(self)


CHANGES = {
    "number": lambda m: setattr(m, "number", 2),
    "text": lambda m: setattr(m, "text", "b"),
    "tensor": lambda m: m.tensor.add_(1),
    "array": lambda m: m.array.__setitem__(0, 1),
    "listed": lambda m: m.listed[1].update(a=3),
    "random": lambda m: torch.rand(1, generator=m.random),
}


def test_plain_state_is_compared_by_value_and_no_other():
    loss = vgx.discover().part("loss", "l1")()
    flip = vgx.discover().part("augmentation", "horizontal-flip")()
    before = state_of(loss, Keeps(lambda _: None))
    assert before == state_of(loss, Keeps(lambda _: None))
    for name, change in CHANGES.items():
        after = state_of(loss, Keeps(change))
        assert {key for key in before if before[key] != after[key]} == {name}
    # A buffer is saved with a loss, but not with an augmentation.
    add = lambda m: m.buffer.add_(1)  # noqa: E731
    assert state_of(loss, Keeps(add)) == before
    assert state_of(flip, Keeps(add)) != state_of(flip, Keeps(lambda _: None))

    def unnoticed(module):
        COUNTS[0] += 1
        module.other.count = 1

    assert state_of(loss, Keeps(unnoticed)) == before
