#!/bin/sh
# Runs the examples through the runner and keeps what the JVM learned of it: classes loaded, linked and profiled.
set -e
cd "$(mktemp -d)"
mkfifo in out
cat out > answers &
RUNNER_IN=in RUNNER_OUT=out /opt/java/bin/java -XX:AOTCacheOutput=/opt/oncebox/java/runner.aot \
    @/opt/oncebox/java/jvm.options -jar /opt/oncebox/java/runner.jar > /dev/null &
cat "$1" > in
wait $!
# All of them end well but the two that are meant to fail, or the image is not worth having.
test "$(grep -c '"done":{}}' answers)" -eq "$(($(wc -l < "$1") - 2))"
test -s /opt/oncebox/java/runner.aot
