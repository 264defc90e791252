"""How every causal language model of the installed transformers is served: tiny models, tried one by one."""
