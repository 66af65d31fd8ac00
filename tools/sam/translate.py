"""Prints template.yaml as SAM translates it: the CloudFormation that is deployed.

It runs in the SAM CLI's own environment, with the translator that the CLI brings.
"""

import json
import sys

from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform


class ManagedPolicies:
    """No function here names a managed policy of AWS's by its name."""

    def load(self):
        return {}


with open(sys.argv[1], encoding="utf-8") as f:
    template = yaml_parse(f.read())
template["Globals"]["Function"].pop("CodeUri", None)
for resource in template["Resources"].values():
    if resource["Type"] == "AWS::Serverless::Function":
        # What `sam package` would put there.
        resource["Properties"]["CodeUri"] = "s3://code/function.zip"
defaults = {name: p.get("Default", "") for name, p in template["Parameters"].items()}
json.dump(transform(template, defaults, ManagedPolicies()), sys.stdout)
