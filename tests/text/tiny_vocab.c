/* SPDX-License-Identifier: MIT */
#include "tests/text/tiny_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/byte_buffer.h"

/* In the byte alphabet: a space is U+0120, byte C3 is U+00C3, byte A9 is U+00A9. */
const char *const tiny_merges[TINY_MERGES] = {"a b", "ab c", "\xc4\xa0 a", "\xc3\x83 \xc2\xa9"};

static const char *const extra_texts[] = {"ab",
                                          "abc",
                                          ("\xc4\xa0"
                                           "a"),
                                          "<|end|>",
                                          "<t>",
                                          "\xc3\x83\xc2\xa9",
                                          "unused"};

void tiny_vocab_spell(unsigned byte, char out_text[3])
{
    unsigned code_point = byte;
    if (byte < 33 || (byte > 126 && byte < 161) || byte == 173) {
        code_point = 256;
        for (unsigned b = 0; b < byte; b++)
            code_point += b < 33 || (b > 126 && b < 161) || b == 173;
    }
    memset(out_text, 0, 3);
    if (code_point < 0x80) {
        out_text[0] = (char)code_point;
    } else {
        out_text[0] = (char)(0xc0 | code_point >> 6);
        out_text[1] = (char)(0x80 | (code_point & 0x3f));
    }
}

static void append(ferrum_byte_buffer_t *buffer, const char *text)
{
    ferrum_byte_buffer_append(buffer, text, strlen(text));
}

static void append_entry(ferrum_byte_buffer_t *buffer, const char *text, int id)
{
    char number[32];
    bool escape = strcmp(text, "\"") == 0 || strcmp(text, "\\") == 0;
    append(buffer, id ? ",\"" : "\"");
    append(buffer, escape ? "\\" : "");
    append(buffer, text);
    (void)snprintf(number, sizeof number, "\":%d", id);
    append(buffer, number);
}

static const char *or_usual(const char *text, const char *usual)
{
    return text ? text : usual;
}

char *tiny_vocab_json(const tiny_json_t *parts)
{
    ferrum_byte_buffer_t json = {0};
    append(&json, "{\"added_tokens\":");
    append(&json,
           or_usual(parts->added_tokens, "[{\"id\":259,\"content\":\"<|end|>\",\"special\":true},"
                                         "{\"id\":260,\"content\":\"<t>\",\"special\":false}]"));
    append(&json, ",\"normalizer\":");
    append(&json, or_usual(parts->normalizer, "{\"type\":\"NFC\"}"));
    append(&json, ",\"pre_tokenizer\":");
    append(&json,
           or_usual(parts->pre_tokenizer, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"));
    append(&json, ",\"post_processor\":");
    append(&json, or_usual(parts->post_processor, "null"));
    append(&json, ",\"model\":{");
    append(&json, or_usual(parts->model_options, "\"type\":\"BPE\","));
    append(&json, "\"vocab\":{");
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[3];
        tiny_vocab_spell(byte, text);
        append_entry(&json, text, (int)byte);
    }
    for (int id = TINY_AB; id <= TINY_E_ACUTE; id++)
        if (id != TINY_END && id != TINY_T)
            append_entry(&json, extra_texts[id - TINY_AB], id);
    append(&json, or_usual(parts->more_vocab, ""));
    append(&json, "},\"merges\":");
    append(&json, or_usual(parts->merges, "[\"a b\",\"ab c\",\"\xc4\xa0 a\","
                                          "\"\xc3\x83 \xc2\xa9\"]"));
    append(&json, "}}");
    ferrum_byte_buffer_append(&json, "", 1);
    return (char *)json.data;
}

void tiny_vocab_gguf(ferrum_gguf_writer_t *writer, const char *model, const char *pre,
                     const char *const *merges, uint64_t merges_count)
{
    char spelled[256][3];
    const char *tokens[TINY_VOCAB];
    int32_t types[TINY_VOCAB];
    for (unsigned id = 0; id < TINY_VOCAB; id++) {
        if (id < 256)
            tiny_vocab_spell(id, spelled[id]);
        tokens[id] = id < 256 ? spelled[id] : extra_texts[id - TINY_AB];
        types[id] = 1;
    }
    types[TINY_END] = 3;
    types[TINY_T] = 4;
    types[TINY_UNUSED] = 5;
    if (model)
        ferrum_gguf_writer_string(writer, "tokenizer.ggml.model", model);
    if (pre)
        ferrum_gguf_writer_string(writer, "tokenizer.ggml.pre", pre);
    ferrum_gguf_writer_strings(writer, "tokenizer.ggml.tokens", tokens, TINY_VOCAB);
    ferrum_gguf_writer_i32s(writer, "tokenizer.ggml.token_type", types, TINY_VOCAB);
    ferrum_gguf_writer_strings(writer, "tokenizer.ggml.merges", merges, merges_count);
}
