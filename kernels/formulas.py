from tinymaml.kernels.cpu.compiled.fused import Group, Operand, Step, supported
