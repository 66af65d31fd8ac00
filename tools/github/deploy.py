"""Deploys what `sam build` built to the stack of an environment in samconfig.toml.

`sam deploy --parameter-overrides` replaces the list of samconfig.toml. This adds to it:
first the parameters of samconfig.toml, then the lines `Name=value` of the variable
PARAMETERS, then each variable PARAMETER_<Name>. Empty variables are left out; SAM keeps
the value that a stack has for a parameter that is left out. The value none empties a
parameter. Values are passed in a file, in which no character is special.
CloudFormation acts with the role in AWS_CLOUDFORMATION_ROLE_ARN, if that is set.

A new stack is deployed without deletion protection, and a second time with it. Otherwise a
first deployment that fails could not be rolled back, because CloudFormation cannot delete
the tables that it has just made.

It runs in the SAM CLI's own environment:

    tools/sam/.cache/sam/bin/python3 tools/github/deploy.py ENVIRONMENT [argument of sam deploy]...
"""

import json
import os
import subprocess
import sys
import tempfile

import boto3
import tomlkit

PREFIX = "PARAMETER_"


def pairs(text):
    """Returns the parameters of a text Name=value; a value has no spaces."""
    found = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals:
            sys.exit(f"{pair!r} is not Name=value")
        found[name] = value
    return found


def parameters(overrides, environment):
    """Returns all parameters: those of samconfig.toml, and those of the environment."""
    found = pairs(overrides) | pairs(environment.get("PARAMETERS", ""))
    for name, value in environment.items():
        if name.startswith(PREFIX) and value:
            found[name.removeprefix(PREFIX)] = value
    return {name: "" if value == "none" else value for name, value in found.items()}


def exists(stack):
    """Reports whether a stack has been deployed."""
    formation = boto3.client("cloudformation")
    try:
        status = formation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
    except formation.exceptions.ClientError as error:
        if "does not exist" in str(error):
            return False
        raise
    return status not in ("REVIEW_IN_PROGRESS", "DELETE_COMPLETE")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    environment, arguments = sys.argv[1], sys.argv[2:]
    here = os.path.dirname(os.path.abspath(__file__))
    config_file = os.path.join(here, "..", "..", "samconfig.toml")
    with open(config_file, encoding="utf-8") as f:
        config = tomlkit.parse(f.read()).unwrap()
    if environment not in config:
        sys.exit(f"samconfig.toml has no environment {environment}")
    settings = config[environment]["deploy"]["parameters"]
    given = parameters(settings.get("parameter_overrides", ""), os.environ)
    print("parameters:", " ".join(sorted(given)), flush=True)
    command = [os.path.join(os.path.dirname(sys.executable), "sam"), "deploy", "--config-file", config_file, "--config-env", environment]
    command += ["--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-progressbar", *arguments]
    if role := os.environ.get("AWS_CLOUDFORMATION_ROLE_ARN"):
        command += ["--role-arn", role]
    steps = [given]
    if given.get("DeletionProtection") == "true" and not exists(settings["stack_name"]):
        print("a new stack: first without deletion protection", flush=True)
        steps.insert(0, given | {"DeletionProtection": "false"})
    for step in steps:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            json.dump(step, file)  # JSON is YAML
            file.flush()
            code = subprocess.run([*command, "--parameter-overrides", "file://" + file.name], check=False).returncode
        if code:
            sys.exit(code)


main()
