"""What a person types: one file a command, beside the pipeline's own stages.

ask         what models say to a prompt, the edited ones beside the unedited
compare     several runs in one table
delta       edits that travel: shown, compared, stacked, applied, reverted
export      an edited model in a form that others open
harness     lm-eval on a run's models
plan        will a run fit a TPU, and what does it cost?
sweep       a run for each of several values of a setting

usage       what `--help` says
words       words of the command line: settings on top of a config
ending      one line and a status, whatever a command ends with
"""
