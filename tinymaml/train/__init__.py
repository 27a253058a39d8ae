"""Training, evaluating and showing any method on any domain. Read in this order:

training (settings of the loop) · domain (what is learned on) · trainer (what the loop drives) · supervised, device_loop
(a method on a domain of tasks) · loop, checkpoint, lock, files (runs that go on to the same bits) · experiment (a
domain, methods and settings by name) · results, schema, report, plots, compare (figures, tables, pictures) · progress,
metrics, memory, devices, sampling, provenance.
"""
