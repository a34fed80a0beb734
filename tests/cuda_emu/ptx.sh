#!/bin/sh
# SPDX-License-Identifier: MIT
# nvcc takes the wrappers for every architecture that is shipped, and makes of them the instructions
# that they are named after, without spills.
set -eu
cd "$FERRUM_TEST_SRCDIR"
nvcc=$(sed -n 's/^NVCC = *//p' "$FERRUM_TEST_BUILDDIR/Makefile")
[ -n "$nvcc" ] || { echo "there is no nvcc"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

$nvcc -std=c++17 -I. -arch=sm_80 -ptx -o "$work/wrappers.ptx" tests/cuda_emu/wrappers.cu
while read -r instruction; do
    grep -qF "$instruction" "$work/wrappers.ptx" || { echo "no $instruction in the PTX"; bad=1; }
done <<'EOF2'
mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
ldmatrix.sync.aligned.m8n8.x1.shared.b16
ldmatrix.sync.aligned.m8n8.x2.shared.b16
ldmatrix.sync.aligned.m8n8.x4.shared.b16
ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16
ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16
ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16
cp.async.ca.shared.global
cp.async.cg.shared.global
cp.async.commit_group
cp.async.wait_group 2
cp.async.wait_group 0
barrier.sync
barrier.arrive
shfl.sync.idx.b32
shfl.sync.bfly.b32
shfl.sync.up.b32
shfl.sync.down.b32
vote.sync.ballot.b32
match.any.sync.b32
dp4a.s32.s32
cvt.rn.f16.f32
cvt.rn.bf16.f32
fma.rn.f16x2
fma.rn.bf16x2
membar.gl
EOF2

$nvcc -std=c++17 -I. -arch=sm_90a -ptx -o "$work/example_sm90.ptx" tests/cuda_emu/example_sm90.cu
while read -r instruction; do
    grep -qF "$instruction" "$work/example_sm90.ptx" || { echo "no $instruction in the PTX"; bad=1; }
done <<'EOF2'
mbarrier.init.shared::cta.b64
mbarrier.arrive.shared::cta.b64
mbarrier.arrive.expect_tx.shared::cta.b64
mbarrier.try_wait.parity.shared::cta.b64
fence.proxy.async.shared::cta
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
setmaxnreg.inc.sync.aligned.u32
setmaxnreg.dec.sync.aligned.u32
wgmma.fence.sync.aligned
wgmma.commit_group.sync.aligned
wgmma.wait_group.sync.aligned
wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16
wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16
wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16
wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16
EOF2

for arch in sm_80 sm_89 sm_90a sm_120; do
    $nvcc -std=c++17 -I. -arch=$arch -cubin -Xptxas -v -o "$work/example.cubin" \
        tests/cuda_emu/example.cu >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    if grep 'spill' "$work/log" | grep -v ' 0 bytes spill stores, 0 bytes spill loads'; then
        echo "$arch: registers are spilled"
        bad=1
    fi
done
exit $bad
