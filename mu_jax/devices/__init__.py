"""Many devices and processes as one.

sharding      the mesh, and a rule for each named axis
distributed   several processes that do the same
crew          if one of them fails, all end
coordinator   where they find each other
preemption    SIGTERM: save and stop
backends      XLA kept calm
"""
