"""Serves moto, with DynamoDB one request at a time.

moto checks a condition and then writes, without a lock between the two, in a
server of many threads: under load two conditional writes can both succeed,
which DynamoDB never allows. Here a lock gives it what it lacks; everything else
is as moto_server has it.
"""

import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def one_at_a_time(app):
    lock = threading.Lock()

    def serve(environ, start_response):
        if not environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB_"):
            return app(environ, start_response)
        with lock:
            return list(app(environ, start_response))

    return serve


host, port = sys.argv[1], int(sys.argv[2])
os.environ["MOTO_PORT"] = str(port)
run_simple(host, port, one_at_a_time(DomainDispatcherApplication(create_backend_app)), threaded=True)
