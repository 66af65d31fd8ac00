"""Assumes a role as a job of GitHub Actions does, with a token for a subject, on an
emulator that reads the token's claims and checks no signature. Prints the credentials as
JSON.

It also opens SAM's bucket to plain HTTP, which the emulator speaks and the bucket's
policy refuses. That needs the credentials of an administrator in the environment. It
runs in the SAM CLI's own environment.

    github.py ROLE_ARN SUBJECT
"""

import base64
import json
import sys
import time

import boto3


def part(claims):
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


role, subject = sys.argv[1:]
s3 = boto3.client("s3")
for bucket in s3.list_buckets()["Buckets"]:
    s3.delete_bucket_policy(Bucket=bucket["Name"])
claims = {
    "iss": "https://token.actions.githubusercontent.com",
    "aud": "sts.amazonaws.com",
    "sub": subject,
    "exp": int(time.time()) + 600,
}
token = ".".join([part({"alg": "RS256"}), part(claims), part("none")])
sts = boto3.client("sts")
try:
    answer = sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="tidings", WebIdentityToken=token)
except sts.exceptions.ClientError as error:
    sys.exit(str(error))
json.dump(answer["Credentials"], sys.stdout, default=str)
