#!/bin/bash
# One run on machines that ssh reaches, a process on each. From the clone, on a shared disk:
#   HOSTS="a b c" cluster/ssh.sh --experiment=classification --workdir=runs/large
# Ctrl-C and SIGTERM are passed on to the first, and stop all of them, saved.
read -ra hosts <<< "$HOSTS"
first="${hosts[0]}:${PORT:-8476}" id="/tmp/fovea-$$-${PORT:-8476}"
stop() { ssh "${hosts[0]}" "kill -$1 \$(cat $id)"; }
trap 'stop TERM' TERM
trap 'stop INT' INT

processes=()
for index in "${!hosts[@]}"; do
  where="--distributed=$first,${#hosts[@]},$index"
  printf -v command ' %q' "${PYTHON:-python}" launch.py "$where" "$@"
  remember=$([ "$index" -eq 0 ] && printf 'echo $$ > %s &&' "$id")
  # Of its own session: Ctrl-C would end ssh itself.
  setsid ssh "${hosts[index]}" "cd $(printf %q "$PWD") && $remember exec$command" &
  processes+=($!)
done

code=0
for process in "${processes[@]}"; do
  while kill -0 "$process" 2> /dev/null; do wait "$process"; one=$?; done # a trap ends a wait
  wait "$process" 2> /dev/null && one=0 || one=$?
  [ "$one" -gt "$code" ] && code=$one
done
exit "$code"
