"""How tests compile: quickly, as most of their time is compiling; XLA takes half as long with these options."""

XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
