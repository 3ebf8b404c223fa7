# What attempts in bash share.
writable() { true 3<> "$1"; }
readable() { head -c 16 "$1" > /dev/null; }
greeted() { [ "$(timeout 3 bash -c "head -c 5 < /dev/tcp/${1%:*}/${1#*:}")" = hello ]; }
