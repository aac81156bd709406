"""Which test shows which row of the feature list: installation (I), application (A), errors (E), claims (H), tasks (T), calls
(K), results (S), workers (L), canvas (W), corrections (Q). A text instead of tests says what the row waits for.
"""

from __future__ import annotations

from typing import Final

SEED: Final = "tests/spec/test_seed_rows.py::"
WRONG: Final = "tests/spec/test_wrong_input.py::"
APP: Final = "tests/program/test_app.py::"
TASK: Final = "tests/program/test_task.py::"
CALLING: Final = "tests/program/test_calling.py::"
RESULT: Final = "tests/program/test_result.py::"
FIND: Final = "tests/program/test_find_app.py::"
CONF: Final = "tests/unit/test_conf.py::"
SERIAL: Final = "tests/unit/test_serialization.py::"
ADDRESS: Final = "tests/unit/test_address.py::"
WORKER: Final = "tests/system/test_cli_worker.py::"
KILL: Final = "tests/system/test_kill.py::"
PROMISES: Final = "tests/system/test_promises.py::"
CANVAS: Final = "tests/program/test_canvas_results.py::"
CALLS: Final = "tests/running/test_calls.py::"
RETRIES: Final = "tests/running/test_retries.py::"
REQUEST: Final = "tests/running/test_request.py::"
WORDS: Final = "tests/system/test_cli_arguments.py::"
GREEN: Final = "tests/system/test_pool_green.py::"
HERE: Final = "tests/spec/test_seed_workers.py::"
WORKFLOWS: Final = "tests/spec/test_canvas_rows.py::"
EXAMPLES: Final = "tests/system/test_examples.py::"

AMQP: Final = "tests/wire/test_amqp.py::"
REDIS: Final = "tests/wire/test_broker.py::"
COMMANDS: Final = "later: the other commands, the monitor among them"
DJANGO: Final = "tests/django/test_"
MULTI: Final = "tests/system/test_cli_multi.py::"
MONITOR: Final = "tests/system/test_monitor.py::"

Shown = tuple[str, ...] | str

ROWS: Final[dict[str, Shown]] = {
    # installation and systems
    "I1": (SEED + "test_I1_the_installed_package_needs_no_server_and_no_client_of_one",),
    "I2": (AMQP + "test_connections_that_the_server_closes_make_nothing_run_twice",),
    "I3": (SEED + "test_I3_the_extra_redis_exists_for_broker_and_results",),
    "I4": (SEED + "test_I3_the_extra_redis_exists_for_broker_and_results",),
    "I5": (SEED + "test_I3_the_extra_redis_exists_for_broker_and_results",),
    "I6": (
        SEED + "test_I6_extras_of_celerys_names_exist",
        SERIAL + "test_a_missing_package_is_one_sentence_with_the_extra_to_install",
    ),
    "I7": (REDIS + "test_a_redis_that_is_restarted_under_load_loses_nothing",),
    "I8": (REDIS + "test_a_lost_connection_makes_nothing_run_twice",),
    "I9": (SEED + "test_I9_a_pool_that_is_not_installed_is_refused_without_a_traceback",),
    "I10": COMMANDS,
    "I11": (
        DJANGO + "example.py::test_a_periodic_task_added_in_the_admin_runs_within_seconds_and_its_result_stands_there",
    ),
    "I12": (
        DJANGO + "results.py::test_every_end_is_a_row_of_django",
        DJANGO + "results.py::test_djangos_cache_gets_every_end",
    ),
    "I13": ("tests/guard/test_package.py::test_importing_litetq_stays_light",),
    "I14": (
        EXAMPLES + "test_everybody_gets_the_newsletter_once_whatever_the_server_does",
        EXAMPLES + "test_the_crawler_reads_each_page_once_and_counts_words",
        EXAMPLES + "test_thumbnails_are_made_in_child_processes_and_a_bad_picture_stops_nobody",
        EXAMPLES + "test_the_report_is_built_after_a_worker_that_ends_when_the_work_is_done",
    ),
    "I15": (SEED + "test_I15_one_process_enqueues_another_works_and_a_third_reads",),
    # application
    "A1": (SEED + "test_A1_the_first_argument_is_the_main_name_and_the_urls_are_settings",),
    "A2": (APP + "test_the_last_app_made_is_current_and_the_first_is_every_threads_default",),
    "A3": (
        SEED + "test_A3_two_apps_in_eight_threads_never_mix",
        TASK + "test_two_apps_keep_tasks_of_the_same_name_apart",
    ),
    "A4": (SEED + "test_A4_A5_A6_A7_in_a_script_the_main_name_stands_for_the_module",),
    "A5": (SEED + "test_A4_A5_A6_A7_in_a_script_the_main_name_stands_for_the_module",),
    "A6": (SEED + "test_A4_A5_A6_A7_in_a_script_the_main_name_stands_for_the_module",),
    "A7": (SEED + "test_A4_A5_A6_A7_in_a_script_the_main_name_stands_for_the_module",),
    "A8": (SEED + "test_A8_a_name_that_is_missing_in_the_registry_is_not_registered",),
    "A9": (SEED + "test_A9_an_imported_module_gives_its_name",),
    "A10": (SEED + "test_A10_without_a_module_the_main_name_begins_the_tasks_name",),
    "A11": (SEED + "test_A11_an_unknown_name_ends_as_not_registered_and_is_logged",),
    "A12": (SEED + "test_A12_A13_the_included_modules_are_imported_whoever_starts_the_worker",),
    "A13": (SEED + "test_A12_A13_the_included_modules_are_imported_whoever_starts_the_worker",),
    "A14": (
        WORKER + "test_worker_main_and_start_reach_the_command_line",
        APP + "test_worker_main_wants_the_worker_command",
    ),
    "A15": (SEED + "test_A15_any_text_is_a_main_name",),
    "A16": (
        SEED + "test_A16_an_app_may_stay_in_the_background_and_opens_nothing",
        TASK + "test_making_an_app_and_tasks_opens_nothing",
        TASK + "test_a_base_class_serves_decorated_functions",
    ),
    "A17": (SEED + "test_A17_a_package_makes_its_app_current_for_shared_tasks",),
    "A18": (SEED + "test_A18_a_name_is_all_that_an_app_needs",),
    "A19": (SEED + "test_A19_configuration_may_follow_the_tasks",),
    "A20": (SEED + "test_A20_a_bound_task_without_result_runs_and_keeps_no_value",),
    # errors and pitfalls
    "E1": (
        SEED + "test_E1_pickle_is_refused_on_both_sides_until_it_is_accepted",
        CALLING + "test_pickle_travels_only_where_it_is_accepted",
    ),
    "E2": (SEED + "test_E2_what_cannot_be_pickled_is_named_at_the_call",),
    "E3": (SEED + "test_E3_a_relative_import_without_package_says_what_to_write",),
    "E4": (CONF + "test_an_unknown_name_is_kept_with_a_warning_that_shows_the_near_one",),
    "E5": (AMQP + "test_a_worker_holds_no_more_than_it_has_places_for",),
    "E6": (CONF + "test_mixed_spellings_are_refused_with_renames_for_the_smaller_group",),
    "E7": (
        SEED + "test_E7_report_shows_where_modules_are_looked_for",
        FIND + "test_the_working_directory_comes_first_on_the_path",
    ),
    "E8": COMMANDS + "; the default pool is the one of Windows: LITETQ_PORTABLE=1 in CI",
    "E9": (SEED + "test_E9_a_long_eta_waits_in_the_file_and_not_in_the_worker",),
    "E10": (SEED + "test_E10_what_a_task_prints_is_seen",),
    "E11": (PROMISES + "test_the_file_stays_small_and_healthy",),
    "E12": ("tests/running/test_beat.py::test_a_job_of_three_seconds_each_second",),
    "E13": (
        PROMISES + "test_no_database_is_locked_two_workers_and_eight_producers",
        KILL + "test_worker_and_children_killed_together",
        WRONG + "test_a_full_disk_refuses_the_call_and_takes_it_when_there_is_space",
    ),
    "E14": (
        SEED + "test_E14_a_module_object_as_settings_reaches_child_processes",
        CONF + "test_a_module_as_source_can_be_told_to_another_process_by_name",
    ),
    "E15": (PROMISES + "test_no_database_is_locked_two_workers_and_eight_producers",),
    # claims: facts here, figures from benchmarks/
    "H1": (SEED + "test_H1_tasks_are_claimed_and_settled_in_batches",),
    "H2": (
        SEED + "test_H2_a_sleeping_worker_is_woken_and_so_is_who_waits",
        RESULT + "test_get_wakes_when_the_task_ends_well_before_its_slow_look",
    ),
    "H3": (
        KILL + "test_a_worker_killed_between_claim_and_settle_loses_nothing",
        KILL + "test_a_worker_killed_in_a_task_fails_it_or_runs_it_again",
        TASK + "test_autoretry_covers_the_named_errors_with_exact_backoff",
    ),
    "H4": (
        "tests/docs/test_extending.py::test_each_of_the_nine_parts_has_an_example_of_about_twenty_lines",
        "tests/docs/test_snippets.py::test_what_a_page_shows_is_what_happens",
        "tests/running/test_autoscale.py::test_a_class_of_ones_own_decides_between_the_bounds",
    ),
    "H5": (EXAMPLES + "test_the_quickstart_is_six_lines_and_its_readme_works_as_written",),
    "H6": ("tests/docs/test_snippets.py::test_what_a_page_shows_is_what_happens",),
    "H7": (
        PROMISES + "test_no_database_is_locked_two_workers_and_eight_producers",
        PROMISES + "test_workers_in_two_pid_namespaces_do_not_take_each_others_work",
    ),
    "H8": (SEED + "test_H8_the_caller_returns_without_anybody_working",),
    # tasks
    "T1": (TASK + "test_a_decorated_function_is_a_task_at_once_and_still_callable",),
    "T2": (TASK + "test_options_of_the_decorator_become_attributes_and_functions_methods",),
    "T3": (SEED + "test_T3_a_decorator_below_is_part_of_the_task",),
    "T4": (TASK + "test_a_bound_task_gets_itself_and_its_argument_check_knows_that",),
    "T5": (SEED + "test_T5_T8_T16_what_a_task_logs_carries_its_name_and_id",),
    "T6": (SEED + "test_T6_a_name_may_be_chosen",),
    "T7": (SEED + "test_E10_what_a_task_prints_is_seen",),
    "T8": (SEED + "test_T5_T8_T16_what_a_task_logs_carries_its_name_and_id",),
    "T9": (
        TASK + "test_a_retry_is_put_into_the_file_with_its_delay_and_only_what_was_given_anew_changes",
        TASK + "test_retries_run_out_with_the_cause_or_with_celerys_sentence",
    ),
    "T10": (TASK + "test_a_decorated_function_is_a_task_at_once_and_still_callable",),
    "T11": (SEED + "test_A11_an_unknown_name_ends_as_not_registered_and_is_logged",),
    "T12": (TASK + "test_a_shared_task_belongs_to_each_app_and_means_the_current_one",),
    "T13": (HERE + "test_T13_a_task_may_print_its_request",),
    "T14": (SEED + "test_T14_T15_true_stays_true_and_an_error_keeps_type_and_text",),
    "T15": (SEED + "test_T14_T15_true_stays_true_and_an_error_keeps_type_and_text",),
    "T16": (SEED + "test_T5_T8_T16_what_a_task_logs_carries_its_name_and_id",),
    "T17": (SEED + "test_A12_A13_the_included_modules_are_imported_whoever_starts_the_worker",),
    "T18": (
        RETRIES + "test_the_next_attempt_is_due_after_its_delay",
        CALLING + "test_a_busy_file_is_tried_again_by_the_publish_policy_and_then_named",
    ),
    "T19": (SEED + "test_E3_a_relative_import_without_package_says_what_to_write",),
    "T20": (SEED + "test_E7_report_shows_where_modules_are_looked_for",),
    # calls
    "K1": (CALLING + "test_delay_and_apply_async_put_the_same_call_into_the_file",),
    "K2": (WRONG + "test_a_wrong_call_raises_one_sentence_and_changes_nothing",),
    "K3": (CALLING + "test_delay_and_apply_async_put_the_same_call_into_the_file",),
    "K4": (CALLING + "test_a_delayed_call_waits_and_an_expired_one_is_revoked",),
    "K5": (TASK + "test_times_of_a_call_are_read_as_celery_reads_them",),
    "K6": (CALLING + "test_a_delayed_call_waits_and_an_expired_one_is_revoked",),
    "K7": (TASK + "test_times_of_a_call_are_read_as_celery_reads_them",),
    "K8": (CALLING + "test_delay_and_apply_async_put_the_same_call_into_the_file",),
    "K9": (CALLING + "test_delay_and_apply_async_put_the_same_call_into_the_file",),
    "K10": (CALLING + "test_delay_goes_through_an_overridden_apply_async",),
    "K11": (CALLS + "test_every_form_of_a_call_gives_the_same_value",),
    "K12": (CANVAS + "test_links_are_children", WORKFLOWS + "test_Q11_K12_children_are_those_of_the_link_form"),
    "K13": (CANVAS + "test_what_a_failed_task_was_linked_to_is_no_child",),
    "K14": (CANVAS + "test_errbacks_are_called_in_celerys_two_styles",),
    "K15": (
        CANVAS + "test_links_are_children",
        CANVAS + "test_errbacks_are_called_in_celerys_two_styles",
    ),
    "K16": (SEED + "test_K16_K17_progress_is_seen_in_order_with_the_value_at_the_end",),
    "K17": (SEED + "test_K16_K17_progress_is_seen_in_order_with_the_value_at_the_end",),
    "K18": (SEED + "test_K18_K21_countdown_and_eta_are_one_point_in_time",),
    "K19": (SEED + "test_E9_a_long_eta_waits_in_the_file_and_not_in_the_worker",),
    "K20": ("tests/wire/test_redis_family.py::test_a_socket_and_a_prefix_are_as_good_as_a_port",),
    "K21": (SEED + "test_K18_K21_countdown_and_eta_are_one_point_in_time",),
    "K22": (CALLING + "test_queue_priority_and_headers_of_a_call_reach_its_request",),
    "K23": (WORKER + "test_only_the_queues_asked_for_are_consumed",),
    "K24": (CALLING + "test_ignore_result_gives_none_at_once_and_the_call_overrides_the_task",),
    "K25": (RESULT + "test_then_calls_back_once_with_the_result_and_nobody_needs_to_get_it",),
    "K26": (SEED + "test_K26_K31_a_task_without_arguments_and_one_by_keywords_only",),
    "K27": (SEED + "test_E9_a_long_eta_waits_in_the_file_and_not_in_the_worker",),
    "K28": (SEED + "test_H8_the_caller_returns_without_anybody_working",),
    "K29": (SEED + "test_H2_a_sleeping_worker_is_woken_and_so_is_who_waits",),
    "K30": (SEED + "test_T14_T15_true_stays_true_and_an_error_keeps_type_and_text",),
    "K31": (SEED + "test_K26_K31_a_task_without_arguments_and_one_by_keywords_only",),
    # results and states
    "S1": (RESULT + "test_a_failure_raises_what_the_task_raised_with_the_workers_traceback_as_its_cause",),
    "S2": (SEED + "test_I15_one_process_enqueues_another_works_and_a_third_reads",),
    "S3": (SEED + "test_I15_one_process_enqueues_another_works_and_a_third_reads",),
    "S4": (RESULT + "test_a_success_has_its_value_and_everything_else_about_it",),
    "S5": (RESULT + "test_a_waiting_task_is_pending_and_known_and_an_unknown_id_is_pending_and_not",),
    "S6": (SEED + "test_S6_S7_S10_states_on_the_way_are_not_ready",),
    "S7": (SEED + "test_S6_S7_S10_states_on_the_way_are_not_ready",),
    "S8": (SEED + "test_T14_T15_true_stays_true_and_an_error_keeps_type_and_text",),
    "S9": (RESULT + "test_a_success_has_its_value_and_everything_else_about_it",),
    "S10": (SEED + "test_S6_S7_S10_states_on_the_way_are_not_ready",),
    "S11": (RESULT + "test_a_callback_held_weakly_is_forgotten_with_its_owner",),
    "S12": (RESULT + "test_a_result_that_was_seen_to_end_keeps_its_value",),
    "S13": (RESULT + "test_forget_removes_the_result_and_revoke_ends_what_has_not_begun",),
    "S14": (CANVAS + "test_chains_hand_the_value_on",),
    "S15": (CANVAS + "test_links_are_children",),
    "S16": (
        CANVAS + "test_links_are_children",
        RESULT + "test_walking_over_children_stops_at_what_has_not_ended",
    ),
    "S17": (SEED + "test_T5_T8_T16_what_a_task_logs_carries_its_name_and_id",),
    # workers
    "L1": (WORDS + "test_every_level_is_taken_in_any_case",),
    "L2": (HERE + "test_L2_L8_L9_L10_L31_tasks_run_in_so_many_children_and_never_in_the_worker_itself",),
    "L3": (FIND + "test_the_working_directory_comes_first_on_the_path",),
    "L4": (FIND + "test_dash_a_finds_the_app_in_every_layout_that_celery_knows",),
    "L5": (
        FIND + "test_dash_a_finds_the_app_in_every_layout_that_celery_knows",
        FIND + "test_a_module_without_an_app_says_what_was_tried",
    ),
    "L6": (
        WORDS + "test_every_level_is_taken_in_any_case",
        WORDS + "test_a_mistake_gets_one_sentence_and_changes_nothing",
    ),
    "L7": (
        WORKER + "test_a_worker_runs_what_a_program_enqueues_and_answers_it",
        GREEN + "test_L13_L14_a_hundred_tasks_wait_at_once_in_one_worker_that_was_patched_before_the_app",
    ),
    "L8": (HERE + "test_L2_L8_L9_L10_L31_tasks_run_in_so_many_children_and_never_in_the_worker_itself",),
    "L9": (HERE + "test_L2_L8_L9_L10_L31_tasks_run_in_so_many_children_and_never_in_the_worker_itself",),
    "L10": (HERE + "test_L2_L8_L9_L10_L31_tasks_run_in_so_many_children_and_never_in_the_worker_itself",),
    "L11": ("tests/docs/test_snippets.py::test_what_a_page_shows_is_what_happens",),
    "L12": "later: the runs on Windows; children are new interpreters everywhere: H3, and LITETQ_PORTABLE=1 in CI",
    "L13": (GREEN + "test_L13_L14_a_hundred_tasks_wait_at_once_in_one_worker_that_was_patched_before_the_app",),
    "L14": (GREEN + "test_L13_L14_a_hundred_tasks_wait_at_once_in_one_worker_that_was_patched_before_the_app",),
    "L15": (WORDS + "test_help_needs_no_app", WORDS + "test_the_help_of_the_worker_lists_its_options_first"),
    "L16": (
        WORKER + "test_the_banner_has_celerys_fields",
        ADDRESS + "test_a_shown_address_holds_no_password",
    ),
    "L17": (
        WORKER + "test_the_banner_has_celerys_fields",
        "tests/running/test_events.py::test_one_process_reads_what_another_does",
    ),
    "L18": (WORKER + "test_the_banner_has_celerys_fields",),
    "L19": (
        WORKER + "test_the_first_ctrl_c_lets_running_tasks_finish",
        WORKER + "test_the_second_ctrl_c_stops_at_once_and_leaves_no_process",
    ),
    "L20": (MULTI + "test_three_nodes_start_restart_and_stop",),
    "L21": (MULTI + "test_three_nodes_start_restart_and_stop",),
    "L22": (MULTI + "test_stop_does_not_wait_for_a_running_task_and_stopwait_does",),
    "L23": (MULTI + "test_stop_does_not_wait_for_a_running_task_and_stopwait_does",),
    "L24": ("tests/system/test_beat_cli.py::test_beat_sends_what_is_due_and_says_so",),
    "L25": (MONITOR + "test_M1_M4_L25_the_page_needs_an_app_or_a_file_and_nothing_else",),
    "L26": ("tests/program/test_routing.py::test_a_route_of_every_form_leads_to_its_queue",),
    "L27": (
        "tests/system/test_daemon.py::"
        "test_a_detached_worker_runs_in_a_session_of_its_own_and_the_command_ends_when_it_is_ready",
    ),
    "L28": (
        MONITOR + "test_M1_M4_L25_the_page_needs_an_app_or_a_file_and_nothing_else",
        MONITOR + "test_workers_queues_and_counts_are_those_of_the_file",
        "tests/system/test_monitor_page.py::test_filters_find_what_they_say",
    ),
    "L29": ("tests/docs/test_snippets.py::test_every_page_of_the_guide_is_listed",),
    "L30": (WORDS + "test_options_may_stand_before_and_after_the_command",),
    "L31": (HERE + "test_L2_L8_L9_L10_L31_tasks_run_in_so_many_children_and_never_in_the_worker_itself",),
    # canvas
    "W1": (WORKFLOWS + "test_W1_a_signature_is_a_dict_and_may_be_an_argument",),
    "W2": (WORKFLOWS + "test_W2_W3_W4_signatures_by_name_by_task_and_by_shortcut",),
    "W3": (WORKFLOWS + "test_W2_W3_W4_signatures_by_name_by_task_and_by_shortcut",),
    "W4": (WORKFLOWS + "test_W2_W3_W4_signatures_by_name_by_task_and_by_shortcut",),
    "W5": (WORKFLOWS + "test_W5_options_are_set_and_given_and_the_later_ones_win",),
    "W6": (WORKFLOWS + "test_W6_W7_W8_what_is_given_later_comes_first_and_wins",),
    "W7": (WORKFLOWS + "test_W6_W7_W8_what_is_given_later_comes_first_and_wins",),
    "W8": (WORKFLOWS + "test_W6_W7_W8_what_is_given_later_comes_first_and_wins",),
    "W9": (WORKFLOWS + "test_W9_an_immutable_signature_is_not_given_the_value",),
    "W10": (WORKFLOWS + "test_Q10_W10_W11_W12_chains",),
    "W11": (WORKFLOWS + "test_Q10_W10_W11_W12_chains",),
    "W12": (WORKFLOWS + "test_Q10_W10_W11_W12_chains",),
    "W13": (WORKFLOWS + "test_W13_a_group_gives_its_values_in_order",),
    "W14": (WORKFLOWS + "test_W14_a_chords_body_runs_once_after_all",),
    "W15": (WORKFLOWS + "test_W15_a_group_before_a_task_is_a_chord",),
    "W16": (WORKFLOWS + "test_W16_W17_W18_maps_are_one_task",),
    "W17": (WORKFLOWS + "test_W16_W17_W18_maps_are_one_task",),
    "W18": (WORKFLOWS + "test_W16_W17_W18_maps_are_one_task",),
    "W19": (WORKFLOWS + "test_W19_W20_W21_chunks_are_a_group_of_maps",),
    "W20": (WORKFLOWS + "test_W19_W20_W21_chunks_are_a_group_of_maps",),
    "W21": (WORKFLOWS + "test_W19_W20_W21_chunks_are_a_group_of_maps",),
    "W22": (WORKFLOWS + "test_W22_W23_the_guide_has_a_chapter_and_the_one_on_calls_leads_to_it",),
    "W23": (WORKFLOWS + "test_W22_W23_the_guide_has_a_chapter_and_the_one_on_calls_leads_to_it",),
    # values that the lists show wrongly
    "Q9": (WORKFLOWS + "test_Q9_an_ignored_result_is_none_at_once",),
    "Q10": (WORKFLOWS + "test_Q10_W10_W11_W12_chains",),
    "Q11": (WORKFLOWS + "test_Q11_K12_children_are_those_of_the_link_form",),
}

# All rows of these sections must be above: how many they have.
WHOLE: Final = {"I": 15, "A": 20, "E": 15, "H": 8, "T": 20, "K": 31, "S": 17, "L": 31, "W": 23}
