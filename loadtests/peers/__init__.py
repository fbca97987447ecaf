"""Others that do a fleet's job, each in processes of its own, used as their documentation says.

    per_tick.py      a consumer group, one tick at a time, with our model or with one of river's
    taskiq_queue.py  a task for each tick, taskiq-redis
    streaq_queue.py  a task for each tick, streaq
    bytewax_flow.py  a dataflow with a state for each asset, bytewax

Each is started by `loadtests.rig` with one JSON argument (`launch.Given`); its predictions, one for each tick in
`usp:{partition}:predictions`, tell how far it is.
"""
