"""Takes the tables that a deleted stack has left behind into a new stack of the same name,
after which `sam deploy` deploys the rest. Without it, `sam deploy` fails, because
tables of these names exist.

    tools/sam/.cache/sam/bin/python3 tools/cloud/import.py STACK [Name=value]...

It needs the credentials of an administrator. Name=value are parameters of the stack;
DeletionProtection and SecretsKeyArn matter here, and have to be as before. The key that the
deleted stack has made for the endpoints' secrets is taken into the stack, too, if
SecretsKeyArn is create. It creates and deletes no table. With --print as the first
argument it prints the template and what it would import, and does nothing.
"""

import json
import os
import sys

import boto3
from samcli.yamlhelper import yaml_parse

# What remains when a stack is deleted, with what CloudFormation knows it by.
IDENTIFIERS = {"AWS::DynamoDB::Table": "TableName", "AWS::KMS::Key": "KeyId"}


def kept(template):
    """Returns the part of a template that describes what remains."""
    resources = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] in IDENTIFIERS and resource.get("DeletionPolicy") == "RetainExceptOnCreate":
            # CloudFormation imports only what it is told to retain.
            resources[name] = resource | {"DeletionPolicy": "Retain"}
    used = json.dumps(resources)
    conditions = {name: c for name, c in template["Conditions"].items() if f'"{name}"' in used}
    used += json.dumps(conditions)
    parameters = {name: p for name, p in template["Parameters"].items() if f'"{name}"' in used}
    return {
        "AWSTemplateFormatVersion": template["AWSTemplateFormatVersion"],
        "Parameters": parameters,
        "Conditions": conditions,
        "Resources": resources,
    }


def identifier(resource, stack):
    """Returns what identifies an existing resource, or None if it does not exist."""
    kind = resource["Type"]
    if kind == "AWS::DynamoDB::Table":
        name = resource["Properties"]["TableName"]["Fn::Sub"].replace("${AWS::StackName}", stack)
        database = boto3.client("dynamodb")
        try:
            database.describe_table(TableName=name)
        except database.exceptions.ResourceNotFoundException:
            return None
        return name
    kms = boto3.client("kms")  # a key has no name, but a tag
    for page in kms.get_paginator("list_keys").paginate():
        for key in page["Keys"]:
            about = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
            if about["KeyManager"] != "CUSTOMER" or about["KeyState"] != "Enabled":
                continue
            tags = kms.list_resource_tags(KeyId=key["KeyId"])["Tags"]
            if {"TagKey": "tidings-stack", "TagValue": stack} in tags:
                return key["KeyId"]
    return None


def main():
    arguments = sys.argv[1:]
    show = arguments[:1] == ["--print"]
    if show:
        arguments = arguments[1:]
    if not arguments:
        sys.exit(__doc__)
    stack, given = arguments[0], dict(a.split("=", 1) for a in arguments[1:])
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "..", "..", "template.yaml"), encoding="utf-8") as f:
        template = kept(yaml_parse(f.read()))
    imported = []
    for name in list(template["Resources"]):
        resource = template["Resources"][name]
        made = resource["Type"] != "AWS::KMS::Key" or given.get("SecretsKeyArn") == "create"
        found = identifier(resource, stack) if made else None
        if found is None:
            del template["Resources"][name]  # `sam deploy` makes it
            continue
        imported.append(
            {
                "ResourceType": resource["Type"],
                "LogicalResourceId": name,
                "ResourceIdentifier": {IDENTIFIERS[resource["Type"]]: found},
            }
        )
    if not imported:
        sys.exit(f"no table of {stack} exists: `sam deploy` alone deploys it")
    if show:
        print(json.dumps({"template": template, "imported": imported}, indent=2))
        return
    formation = boto3.client("cloudformation")
    formation.create_change_set(
        StackName=stack,
        ChangeSetName="import",
        ChangeSetType="IMPORT",
        TemplateBody=json.dumps(template),
        ResourcesToImport=imported,
        Parameters=[
            {"ParameterKey": k, "ParameterValue": v} for k, v in given.items() if k in template["Parameters"]
        ],
    )
    formation.get_waiter("change_set_create_complete").wait(StackName=stack, ChangeSetName="import")
    formation.execute_change_set(StackName=stack, ChangeSetName="import")
    formation.get_waiter("stack_import_complete").wait(StackName=stack)
    print("imported", " ".join(i["LogicalResourceId"] for i in imported))
    print("now run `sam deploy` with the same parameters")


main()
