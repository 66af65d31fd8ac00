"""Creates a translated stack, from standard input, in moto's CloudFormation, and
prints what came of it: status, tables, queues, and what was left out.

It runs in moto's environment (tools/brokers), within one process.
"""

import collections
import json
import os
import sys

os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_DEFAULT_REGION="us-east-1")

import boto3  # noqa: E402
from moto import mock_aws  # noqa: E402

# moto's CloudFormation knows neither aliases nor schedules, so it can't make what
# refers to a function's alias: triggers, permissions, URLs, dashboard, roles.
MADE = {
    "AWS::DynamoDB::Table",
    "AWS::KMS::Alias",
    "AWS::KMS::Key",
    "AWS::Logs::LogGroup",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
}

template = json.load(sys.stdin)
template.pop("Outputs", None)
resources = template["Resources"]
template["Resources"] = {name: r for name, r in resources.items() if r["Type"] in MADE}
stack = sys.argv[1]
with mock_aws():
    formation, dynamodb, sqs = (boto3.client(s) for s in ("cloudformation", "dynamodb", "sqs"))
    formation.create_stack(StackName=stack, TemplateBody=json.dumps(template))
    made = formation.list_stack_resources(StackName=stack)["StackResourceSummaries"]
    json.dump(
        {
            "Status": formation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"],
            "Tables": [dynamodb.describe_table(TableName=t)["Table"] for t in dynamodb.list_tables()["TableNames"]],
            "Queues": [
                sqs.get_queue_attributes(QueueUrl=u, AttributeNames=["All"])["Attributes"]
                for u in sqs.list_queues().get("QueueUrls", [])
            ],
            "Made": collections.Counter(r["ResourceType"] for r in made),
            "LeftOut": collections.Counter(r["Type"] for r in resources.values() if r["Type"] not in MADE),
        },
        sys.stdout,
        default=str,
    )
