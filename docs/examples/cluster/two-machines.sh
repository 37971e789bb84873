#!/bin/bash
# Two network namespaces of one Linux machine as two machines: each has an address, folders and
# processes of its own, and all that they share is a wire. As root:
#   bash two-machines.sh FOLDER RECIPE [options of vgx run]
set -eu
folder=$(realpath "$1")
shift
export OMP_NUM_THREADS=1

trap 'ip netns del vgx-1; ip netns del vgx-2' EXIT
ip netns add vgx-1
ip netns add vgx-2
ip link add wire-1 netns vgx-1 type veth peer name wire-2 netns vgx-2
for n in 1 2; do
  ip -n "vgx-$n" address add "10.77.0.$n/24" dev "wire-$n"
  ip -n "vgx-$n" link set "wire-$n" up
  ip -n "vgx-$n" link set lo up
done

machine() { # number, then the command line of vgx
  local n=$1
  shift
  mkdir -p "$folder/$n"
  VGX_CACHE=$folder/$n/cache VGX_RUNS=$folder/$n/runs GLOO_SOCKET_IFNAME=wire-$n \
    ip netns exec "vgx-$n" torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d \
    --rdzv-endpoint 10.77.0.1:29500 --rdzv-conf "is_host=$((n == 1))" --rdzv-id two \
    --local-addr "10.77.0.$n" -m vgx "$@" > "$folder/$n/output" 2>&1
}
machine 1 run "$@" &
first=$!
machine 2 run "$@" &
second=$!
wait "$first" "$second"
ip -n vgx-1 -statistics link show wire-1 > "$folder/wire"
