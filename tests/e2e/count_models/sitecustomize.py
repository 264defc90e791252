"""Imported by every interpreter that has this folder in PYTHONPATH: counts models that are made.

Writes a line with the process id to COUNT_MODELS_FILE for each instance of the model's class.
"""

import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path

MODULE = "transformers.models.qwen2.modeling_qwen2"


class CountingFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            make = module.Qwen2ForCausalLM.__init__

            def counted(model, *args, **kwargs):
                with Path(os.environ["COUNT_MODELS_FILE"]).open("a") as file:
                    file.write(f"{os.getpid()}\n")
                make(model, *args, **kwargs)

            module.Qwen2ForCausalLM.__init__ = counted

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, CountingFinder())
