"""Checks that the emulator still has the gaps for which test/ministack/adapt.go edits the
template. It fails with the list of edits that are no longer needed. It runs in the SAM
CLI's own environment, with the credentials of the emulator's administrator.
"""

import json
import sys

import boto3
import botocore.exceptions

formation, iam, sqs = (boto3.client(s) for s in ("cloudformation", "iam", "sqs"))


def creates(name, **resources):
    """Reports whether a stack with these resources and the parameter Fifty can be created."""
    template = {"Parameters": {"Fifty": {"Type": "Number", "Default": 50}}, "Resources": resources}
    try:
        formation.create_stack(StackName=name, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"])
        formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        return True
    except (botocore.exceptions.WaiterError, formation.exceptions.ClientError):
        return False


def resource(kind, **properties):
    return {"Type": kind, "Properties": properties}


def codedeploy():
    return creates("gap-codedeploy", R=resource("AWS::CodeDeploy::Application", ComputePlatform="Lambda"))


def oidc():
    return creates(
        "gap-oidc",
        R=resource("AWS::IAM::OIDCProvider", Url="https://token.actions.githubusercontent.com", ClientIdList=["a"]),
    )


def expressions():
    stat = {"Stat": "Sum", "Period": 60, "Metric": {"Namespace": "AWS/Lambda", "MetricName": "Errors"}}
    metrics = [
        {"Id": "sum", "Expression": "SUM(METRICS())"},
        {"Id": "m", "ReturnData": False, "MetricStat": stat},
    ]
    alarm = resource(
        "AWS::CloudWatch::Alarm",
        AlarmName="gap-expression",
        Metrics=metrics,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
    )
    return creates("gap-expression", R=alarm)


def booleans():
    table = resource(
        "AWS::DynamoDB::Table",
        TableName="gap-boolean",
        BillingMode="PAY_PER_REQUEST",
        DeletionProtectionEnabled="false",
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
    )
    creates("gap-boolean", R=table)
    protected = boto3.client("dynamodb").describe_table(TableName="gap-boolean")["Table"]["DeletionProtectionEnabled"]
    return isinstance(protected, bool)


def numbers():
    role = resource(
        "AWS::IAM::Role",
        AssumeRolePolicyDocument={
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
        },
    )
    function = resource(
        "AWS::Lambda::Function",
        FunctionName="gap-number",
        Runtime="python3.12",
        Handler="index.f",
        Code={"ZipFile": "def f(e, c): pass"},
        Role={"Fn::GetAtt": ["Role", "Arn"]},
    )
    mapping = resource(
        "AWS::Lambda::EventSourceMapping",
        FunctionName={"Ref": "Function"},
        EventSourceArn={"Fn::GetAtt": ["Queue", "Arn"]},
        ScalingConfig={"MaximumConcurrency": {"Ref": "Fifty"}},
    )
    queue = resource("AWS::SQS::Queue", QueueName="gap-number")
    creates("gap-number", Role=role, Function=function, Queue=queue, Mapping=mapping)
    functions, bodies = boto3.client("lambda"), []
    # The client would convert the text.
    functions.meta.events.register("before-parse", lambda response_dict, **_: bodies.append(response_dict["body"]))
    functions.list_event_source_mappings(FunctionName="gap-number")
    made = json.loads(bodies[0])["EventSourceMappings"]
    stays = isinstance(made[0]["ScalingConfig"]["MaximumConcurrency"], int)
    formation.delete_stack(StackName="gap-number")
    return stays


def batches():
    url = sqs.create_queue(QueueName="gap-batch")["QueueUrl"]
    iam.create_user(UserName="gap-batch")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}]}
    iam.put_user_policy(UserName="gap-batch", PolicyName="send", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="gap-batch")["AccessKey"]
    sender = boto3.client("sqs", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"], aws_session_token=None)
    sender.send_message(QueueUrl=url, MessageBody="a")  # this it may
    try:
        sender.send_message_batch(QueueUrl=url, Entries=[{"Id": "a", "MessageBody": "a"}])
        return True
    except botocore.exceptions.ClientError:
        return False


# Each gap by the edit that it needs, as adapt.go and github.go list them.
EDITS = {
    "DeploymentPreference is removed": codedeploy,
    "the identity provider of the roles is removed": oidc,
    "alarms on an expression are replaced": expressions,
    "DeletionProtectionEnabled is false": booleans,
    "MaximumConcurrency is a number": numbers,
    "sqs:SendMessageBatch is allowed": batches,
}

closed = [edit for edit, works in EDITS.items() if works()]
if closed:
    sys.exit("the emulator can do without these edits; remove them: " + "; ".join(closed))
print(len(EDITS), "edits are needed")
