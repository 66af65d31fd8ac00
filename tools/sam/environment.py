"""Prints the environment that `sam local invoke` gives to functions: a JSON object by
the names on the command line, as SAM's own code resolves names, template and
--env-vars file. It starts nothing and needs no Docker.

    environment.py TEMPLATE ENV_VARS_FILE FUNCTION...
"""

import json
import os
import sys

from samcli.commands.local.cli_common.invoke_context import InvokeContext
from samcli.commands.local.lib.local_lambda import LocalLambdaRunner
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

template, env_vars, names = sys.argv[1], sys.argv[2], sys.argv[3:]
here = os.path.dirname(os.path.abspath(template))
stacks, _ = SamLocalStackProvider.get_stacks(template)
functions = SamFunctionProvider(stacks)
runner = LocalLambdaRunner(
    local_runtime=None,  # Docker
    function_provider=functions,
    cwd=here,
    real_path=here,
    env_vars_values=InvokeContext._get_env_vars_value(env_vars),
)
resolved = {}
for name in names:
    function = functions.get(name)
    if function is None:
        sys.exit(f"sam local invoke knows no function {name}; it knows " + ", ".join(f.name for f in functions.get_all()))
    resolved[name] = runner.get_invoke_config(function).env_vars.resolve()
json.dump(resolved, sys.stdout)
