"""A recorded step becomes a program: no autodiff, no shapes, no Python between its launches. Read in this order:

passes (dead-code elimination) · peephole (two kernels as one) · regions (splitting by rows) · fusion (elementwise
neighbours as one generated kernel) · memory_plan (buffers placed by lifetime) · lower_cpu, lower_gpu (calls become
launches) · program (`record`, and calling what it gives) · report (`explain` and `picture`).
"""
