#!/bin/sh
# A supervisor of one attempt in shell, with curl and jq: it starts the attempt, runs its command, tells how it ended.
#
#   RUNYARD_API_URL=http://127.0.0.1:8080 sh worker.sh ATTEMPT_ID <file-with-the-ticket
#
# It registers nowhere: the attempt has a lease of its own, which its own heartbeats renew, and the ticket is all that it
# needs. (A queue is offered something only while a registered worker serves it.) What it leaves out: it runs commands
# only, and to a shell a process that was killed by a signal looks like one that ended with 128 and the signal's number.
# No secret is ever an argument of a program: those are for everybody on the machine to see.
set -eu
umask 077

attempt=$1
read -r ticket
boot=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/task"
: >"$work/log"

# call METHOD PATH CREDENTIAL [MEDIA]: send the standard input once; 0: answered, 1: refused for good, 2: not now.
call() {
  cat >"$work/request"
  printf 'Authorization: Bearer %s\n' "$3" >"$work/credential"
  status=$(curl -sS --max-time 5 -X "$1" -H "@$work/credential" -H "Content-Type: ${4:-application/json}" \
    --data-binary "@$work/request" -o "$work/answer" -w '%{http_code}' \
    "$RUNYARD_API_URL/worker/v1/attempts/$attempt$2") || return 2
  case $status in
    2??) return 0 ;;
    429 | 5??) return 2 ;;
    *) cat "$work/answer" >&2; return 1 ;;
  esac
}

# insist …: the same until there is an answer; every call of the protocol may be repeated.
insist() {
  cat >"$work/kept"
  while :; do
    call "$@" <"$work/kept" && return 0
    [ $? -eq 1 ] && return 1
    sleep 1
  done
}

seconds() { cut -d. -f1 /proc/uptime; } # by a clock that nobody sets
renewed() { lease_ends=$(($1 + $(jq '.lease | floor' "$work/answer"))); }
signal() { kill -s "$1" -- "-$(cat "$work/pid")" 2>/dev/null || :; } # to all of the task, if there is anything left
send_log() { # what is there beyond the first $offset bytes, a piece of at most 1 MiB
  if [ "$(wc -c <"$work/log")" -gt "$offset" ]; then
    tail -c "+$((offset + 1))" "$work/log" | head -c 1048576 |
      "$1" PUT "/logs?offset=$offset" "$key" application/octet-stream && offset=$(jq .next_offset "$work/answer")
  fi
}

sent=$(seconds)
KEY=$key jq -n --arg boot "$boot" '{protocol: 1, boot_id: $boot, key: env.KEY, worker_id: null}' |
  insist POST /start "$ticket" || exit 0 # somebody else has it, or it is over: leave it alone
renewed "$sent"
cp "$work/answer" "$work/start"
stop=$(jq -r '.stop.reason // ""' "$work/start")
grace=$(jq '.task.kill_grace | ceil' "$work/start")
limit=$(jq '.task.timeout // 0 | ceil' "$work/start")
began=$(date +%s.%N)
offset=0 asked='' error=''

if [ "$(jq -r .task.kind "$work/start")" != command ]; then
  error='this worker runs commands only'
elif [ -z "$stop" ]; then
  # Its own variables, then its arguments, each quoted by jq for this shell.
  eval "set -- $(jq -r '[.task.env | to_entries[] | "\(.key)=\(.value)"]
    + (.task.argv // ["/bin/sh", "-c", .task.shell]) | @sh' "$work/start")"
  (
    cd "$work/task"
    # A session of its own, so that all of it can be ended; and not our environment.
    setsid sh -c 'echo $$ >"$0/pid"; exec "$@" >"$0/log" 2>&1' "$work" \
      env -i PATH="$PATH" RUNYARD_OUTPUT="$work/output" RUNYARD_ATTEMPT_ID="$attempt" "$@" || code=$?
    echo "${code:-0}" >"$work/code.new"
    mv "$work/code.new" "$work/code"
  ) &
  started=$(seconds) next=$started
  until [ -e "$work/code" ]; do
    sleep 0.1
    now=$(seconds)
    if [ "$now" -ge "$next" ]; then
      next=$((now + 2))
      printf '{"boot_id": "%s"}' "$boot" | call POST /heartbeat "$key" && answered=0 || answered=$?
      [ "$answered" -eq 0 ] && renewed "$now" && stop=${stop:-$(jq -r '.reason // ""' "$work/answer")}
      [ "$answered" -eq 1 ] && stop=fenced
      send_log call || :
    fi
    [ "$now" -gt "$lease_ends" ] && stop=fenced
    [ "$limit" -gt 0 ] && [ $((now - started)) -gt "$limit" ] && stop=${stop:-timeout}
    if [ -n "$stop" ] && [ -s "$work/pid" ]; then
      [ -n "$asked" ] || signal TERM
      asked=${asked:-$now}
      if [ "$stop" = fenced ] || [ $((now - asked)) -ge "$grace" ]; then signal KILL; fi
    fi
  done
  signal KILL # what it left behind
fi

[ "$stop" != fenced ] || exit 0 # another one has it, or will
code=$(cat "$work/code" 2>/dev/null || echo null)
case $stop in
  '') [ "$code" = 0 ] && outcome=success || outcome=failed ;;
  timeout) outcome=timed_out ;;
  drain) outcome=drained ;;
  *) outcome=cancelled ;;
esac
while [ $(($(wc -c <"$work/log") - offset)) -gt 65536 ]; do send_log insist; done
tail -c "+$((offset + 1))" "$work/log" | base64 | tr -d '\n' >"$work/tail"
[ "$outcome" = success ] && [ -e "$work/output" ] || : >"$work/output"
[ "$outcome" = success ] || error=${error:-it ended with $code}

finish() {
  jq -n --arg boot "$boot" --arg outcome "$1" --arg error "$2" --argjson code "$code" --argjson offset "$offset" \
    --argjson size "$(wc -c <"$work/log")" --argjson began "$began" --argjson now "$(date +%s.%N)" \
    --rawfile tail "$work/tail" --rawfile output "$3" \
    '{boot_id: $boot, outcome: $outcome, exit_code: $code, signal: null, error: $error, log_size: $size, log_dropped: 0,
      output: (if $output == "" then null else $output end), started_at: $began, ended_at: $now, sent_at: $now,
      log: {offset: $offset, data: $tail}}' | insist POST /finish "$key"
}
finish "$outcome" "$error" "$work/output" || finish failed 'its output was refused' /dev/null
echo "$attempt $outcome"
