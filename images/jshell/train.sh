#!/bin/sh
# Runs the examples through the runner and stores the JVM's AOT cache: the loaded, linked and profiled classes.
set -e
cd "$(mktemp -d)"
mkfifo in out
cat out > answers &
RUNNER_IN=in RUNNER_OUT=out /opt/java/bin/java -XX:AOTCacheOutput=/opt/oncebox/java/runner.aot \
    @/opt/oncebox/java/jvm.options -jar /opt/oncebox/java/runner.jar > /dev/null &
cat "$1" > in
wait $!
# Every example must succeed, except the last four, which fail on purpose; otherwise the build fails.
test "$(grep -c '"done":{}}' answers)" -eq "$(($(wc -l < "$1") - 4))"
test -s /opt/oncebox/java/runner.aot
