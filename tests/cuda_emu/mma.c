/* SPDX-License-Identifier: MIT */
/* What the lanes of a warp compute together. The layouts are in kernels/cuda/device.cuh. */
#include "tests/cuda_emu/emulator.h"

/* An IEEE half as a float. */
EMU_HIDDEN static float half_value(uint32_t bits)
{
    const uint32_t magnitude = bits & 0x7fffu;
    union {
        uint32_t bits;
        float value;
    } result;

    if (magnitude >= 0x7c00u)
        result.bits = 0x7f800000u | (magnitude & 0x3ffu) << 13;
    else if (magnitude >= 0x400u)
        result.bits = (magnitude << 13) + (112u << 23);
    else
        result.value = (float)magnitude * 0x1p-24f;
    result.bits |= (bits & 0x8000u) << 16;
    return result.value;
}

EMU_HIDDEN static float bfloat_value(uint32_t bits)
{
    const union {
        uint32_t bits;
        float value;
    } result = {.bits = bits << 16};

    return result.value;
}

EMU_HIDDEN static float element(ferrum_emu_meeting_t kind, uint32_t word, uint32_t i)
{
    const uint32_t bits = word >> 16 * i & 0xffffu;

    return kind == FERRUM_EMU_MMA_F16 ? half_value(bits) : bfloat_value(bits);
}

/* d += a * b: 16x8 = 16x16 * 16x8, products exact, summed in f32 in order of k. */
EMU_HIDDEN static void mma_float(ferrum_emu_meeting_t kind, emu_thread_t *warp)
{
    float a[16][16], b[8][16];

    for (uint32_t lane = 0; lane < 32; lane++) {
        const uint32_t *in = warp[lane].in;
        const uint32_t group = lane / 4, in_group = lane % 4;

        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t k = in_group * 2 + i;

            a[group][k] = element(kind, in[0], i);
            a[group + 8][k] = element(kind, in[1], i);
            a[group][k + 8] = element(kind, in[2], i);
            a[group + 8][k + 8] = element(kind, in[3], i);
            b[group][k] = element(kind, in[4], i);
            b[group][k + 8] = element(kind, in[5], i);
        }
    }
    for (uint32_t lane = 0; lane < 32; lane++) {
        for (uint32_t i = 0; i < 4; i++) {
            const float *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
            union {
                uint32_t bits;
                float value;
            } sum = {.bits = warp[lane].in[6 + i]};

            for (uint32_t k = 0; k < 16; k++)
                sum.value += row[k] * column[k];
            warp[lane].out[i] = sum.bits;
        }
    }
}

/* m64nNk16: a warp of the four has 16 rows, in A and D as in m16n8k16; B lies in 16-byte parts of
 * its rows, of which thread i of 128 has number i, i + 128, ... */
EMU_HIDDEN void emu_wgmma_compute(emu_thread_t *group)
{
    static float a[64][16], b[128][16];
    const ferrum_emu_wgmma_t *op = &group[0].wgmma_running;

    for (uint32_t i = 0; i < 128; i++) {
        const uint32_t *words = group[i].wgmma_running.a;
        const uint32_t row = i / 32 * 16 + i % 32 / 4, k = i % 4 * 2;

        for (uint32_t j = 0; j < 8; j++)
            a[row + j / 2 % 2 * 8][k + j / 4 * 8 + j % 2] = element(op->kind, words[j / 2], j % 2);
        for (uint32_t j = 0; j < op->n / 8; j++) {
            const uint32_t part = i + j / 8 * 128;

            b[part / 2][part % 2 * 8 + j % 8] =
                element(op->kind, group[i].wgmma_words[j / 2], j % 2);
        }
    }
    for (uint32_t i = 0; i < 128; i++) {
        float *d = group[i].wgmma_running.d;

        for (uint32_t j = 0; j < op->n / 2; j++) {
            const float *row = a[i / 32 * 16 + i % 32 / 4 + j / 2 % 2 * 8];
            const float *column = b[j / 4 * 8 + i % 4 * 2 + j % 2];
            float sum = op->accumulate ? d[j] : 0.0f;

            for (uint32_t k = 0; k < 16; k++)
                sum += row[k] * column[k];
            d[j] = sum;
        }
    }
}

/* The same for signed bytes: 16x8 = 16x32 * 32x8, sums wrap. */
EMU_HIDDEN static void mma_s8(emu_thread_t *warp)
{
    int32_t a[16][32], b[8][32];

    for (uint32_t lane = 0; lane < 32; lane++) {
        const uint32_t *in = warp[lane].in;
        const uint32_t group = lane / 4;

        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t k = lane % 4 * 4 + i, shift = 8 * i;

            a[group][k] = (int8_t)(in[0] >> shift);
            a[group + 8][k] = (int8_t)(in[1] >> shift);
            a[group][k + 16] = (int8_t)(in[2] >> shift);
            a[group + 8][k + 16] = (int8_t)(in[3] >> shift);
            b[group][k] = (int8_t)(in[4] >> shift);
            b[group][k + 16] = (int8_t)(in[5] >> shift);
        }
    }
    for (uint32_t lane = 0; lane < 32; lane++) {
        for (uint32_t i = 0; i < 4; i++) {
            const int32_t *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
            uint32_t sum = warp[lane].in[6 + i];

            for (uint32_t k = 0; k < 32; k++)
                sum += (uint32_t)(row[k] * column[k]);
            warp[lane].out[i] = sum;
        }
    }
}

EMU_HIDDEN static void ldmatrix(emu_thread_t *warp, bool trans)
{
    const uint32_t matrices = warp[0].in[4];

    for (uint32_t lane = 0; lane < 32; lane++) {
        for (uint32_t m = 0; m < matrices; m++) {
            const emu_thread_t *rows = &warp[8 * m];
            const uint32_t major = lane / 4, minor = lane % 4;

            if (trans) {
                const uint32_t shift = 16 * (major % 2);
                const uint32_t low = rows[minor * 2].in[major / 2] >> shift & 0xffffu;
                const uint32_t high = rows[minor * 2 + 1].in[major / 2] >> shift & 0xffffu;

                warp[lane].out[m] = low | high << 16;
            } else {
                warp[lane].out[m] = rows[major].in[minor];
            }
        }
    }
}

EMU_HIDDEN static void shuffle(uint32_t mask, emu_thread_t *warp)
{
    for (uint32_t lane = 0; lane < 32; lane++) {
        if ((mask >> lane & 1u) == 0)
            continue;
        if ((mask >> warp[lane].in[1] & 1u) == 0)
            emu_fault("shuffle: lane %u reads lane %u, which is not in the mask 0x%08x", lane,
                      warp[lane].in[1], mask);
        warp[lane].out[0] = warp[warp[lane].in[1]].in[0];
    }
}

EMU_HIDDEN static void ballot(uint32_t mask, emu_thread_t *warp)
{
    uint32_t votes = 0;

    for (uint32_t lane = 0; lane < 32; lane++) {
        if ((mask >> lane & 1u) != 0 && warp[lane].in[0] != 0)
            votes |= 1u << lane;
    }
    for (uint32_t lane = 0; lane < 32; lane++) {
        if ((mask >> lane & 1u) != 0)
            warp[lane].out[0] = votes;
    }
}

EMU_HIDDEN static void match_any(uint32_t mask, emu_thread_t *warp)
{
    for (uint32_t lane = 0; lane < 32; lane++) {
        uint32_t same = 0;

        if ((mask >> lane & 1u) == 0)
            continue;
        for (uint32_t other = 0; other < 32; other++) {
            if ((mask >> other & 1u) != 0 && warp[other].in[0] == warp[lane].in[0])
                same |= 1u << other;
        }
        warp[lane].out[0] = same;
    }
}

EMU_HIDDEN void emu_meeting_compute(ferrum_emu_meeting_t kind, uint32_t mask, emu_thread_t *warp)
{
    switch (kind) {
    case FERRUM_EMU_BALLOT:
        ballot(mask, warp);
        break;
    case FERRUM_EMU_MATCH_ANY:
        match_any(mask, warp);
        break;
    case FERRUM_EMU_SHUFFLE:
        shuffle(mask, warp);
        break;
    case FERRUM_EMU_LDMATRIX:
    case FERRUM_EMU_LDMATRIX_TRANS:
        ldmatrix(warp, kind == FERRUM_EMU_LDMATRIX_TRANS);
        break;
    case FERRUM_EMU_MMA_F16:
    case FERRUM_EMU_MMA_BF16:
        mma_float(kind, warp);
        break;
    case FERRUM_EMU_MMA_S8:
        mma_s8(warp);
        break;
    case FERRUM_EMU_WARP_BARRIER:
    case FERRUM_EMU_MEETINGS:
        break;
    }
}
