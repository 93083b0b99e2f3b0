"""Will a run fit, and how long will it take at least? Asked of the TPU compiler alone.

chips       topologies, and what a chip can do
lengths     how long the prompts will be
shapes      a run's arrays without memory
programs    a run's own programs; localizing those of the localizers
costs       arithmetic: FLOPs, seconds, collectives
plan        programs compiled for a topology: the plan
search      the smallest topology that a run fits
show        a plan in words, and as JSON
"""
