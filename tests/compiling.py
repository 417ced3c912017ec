"""How tests compile: quickly, as most of their time is compiling; XLA takes half as long with these options."""

import jax

XLA_FLAGS = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):  # XLA ends a process that gives it an option that it no longer has
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
