# SPDX-License-Identifier: MIT
"""Writes tokenizer_cases.json: strings with their token ids, and ids with the text they decode to, by HF tokenizers
on models/tiny-qwen3moe-gptq/tokenizer.json.

Odd characters are written as escapes here, so that no editor can change them. NUL is left out: the texts are meant for
C strings.
"""

import json

from tokenizers import Tokenizer

from paths import MODELS, output_folder

ENGLISH = [
    "", " ", "a", "A", "In the beginning", " In the beginning", "In the beginning ", "In  the   beginning",
    "In the beginning God created the heaven and the earth.\n", "And the LORD said unto Moses,", "Blessed are",
    "And God said, Let there be light: and there was light.\nAnd God saw the light, that it was good:",
    "Thou shalt not kill.\nThou shalt not commit adultery.\nThou shalt not steal.\n",
    "Yea, though I walk through the valley of the shadow of death, I will fear no evil: for thou art with me;",
    "Nebuchadnezzar", "Mahershalalhashbaz", "antidisestablishmentarianism", "JESUS WEPT", "jesus wept.", "camelCaseWord",
    "snake_case_word", "kebab-case-word", "x=y+z;", "int main(void) { return 0; }", "a.b.c", "...", "....", "?!?!", "(a)",
    "\"quoted\"", "'single'", "`code`", "https://example.org/a?b=c&d=e#f", "user@example.org", "C:\\Users\\x", "<b>bold</b>",
    "50%", "$1.99", "#1", "@", "~!@#$%^&*()_+{}|:\"<>?-=[]\\;',./",
]
CONTRACTIONS = [
    "don't", "I'm", "we're", "they've", "he'll", "she'd", "it's", "DON'T", "I'M", "WE'RE", "THEY'VE", "HE'LL", "SHE'D",
    "IT'S", "'s", "'S", "'tis", "'twas", "o'clock", "rock'n'roll", "''s", "' s", "don't've", "a'b", "'re're", "'Ve", "x'lL",
    "don\u2019t", "'\u017ft",  # a typographic apostrophe; the long s, which equals "s" when case is ignored
]
DIGITS = [
    "0", "42", "1611", "3.14159", "1,000,000", "a1b2", "1st", "2024-02-29T12:34:56Z", "0x1F", "007", " 7", "  7", "7 ", "-1",
    "1e-6", "\u00bd", "\u00b2", "\u2167", "\u0661\u0662\u0663", "\uff11\uff12", "\U0001d7d8",
]
SPACE = [
    "  ", "   ", "    ", " " * 16, " " * 17, "a  b", "a   b", "a    b", "  a", "   a", "a  ", "a   ", "\t", "\t\t", "a\tb", "a\t b",
    "\ta", " \ta", "\t a", "\n", "\n\n", "\n\n\n", "\r", "\r\n", "\r\n\r\n", "a\nb", "a\n\nb", "a \n b", "a  \n  b", "a\n  b",
    "\n a", " \n", "  \n", "\n ", "\n  ", " \n \n ", ".\n", ".\n\n", ". \n", "!\r\n", "a\r\nb", "\x0b", "\x0c", "a\x0bb",
    "\u00a0", "a\u00a0b", "\u00a0\u00a0a", "\u2003a", "\u3000a", "a\u3000\u3000b", "\u2028", "a\u2029b", "\u0085", "a\u0085b",
    "\u200b", "a\u200bb", "\u180e", "\ufeff", "\ufeffIn the beginning", "def f():\n    return 1\n\n\ndef g():\n\treturn 2\n",
]
ACCENTS = [
    "caf\u00e9", "cafe\u0301", "na\u00efve", "nai\u0308ve", "\u00c5", "A\u030a", "\u212b", "\u1e69", "s\u0323\u0307",
    "s\u0307\u0323", "\u0344", "\u2126", "\ufb01", "\u00df", "Stra\u00dfe", "\u0130i\u0131I", "\u03a9\u03bc\u03ad\u03b3\u03b1",
    "\u0415\u0449\u0451 \u0438 \u0439", "\u0438\u0306", "a\u0301\u0302\u0303\u0304", "\u0301", " \u0301", "e\u0301e\u0301",
    "Vi\u1ec7t Nam", "Vie\u0323\u0302t Nam", "q\u0307\u0323", "\u1100\u1161\u11a8", "\uac01", "\u0958", "\u0915\u093c", "\u2adc",
    "\U0001d15e", "\u0f73", "\u0cca",
]
SCRIPTS = [
    "\u592a\u521d\u6709\u9053", "\u592a\u521d\uff0c\u6709\u9053\u3002", "\u306f\u3058\u3081\u306b\u8a00\u8449", "\u304b\u3099",
    "\u30ac", "\uff76\uff9e", "\ud55c\uad6d\uc5b4", "\u0641\u064a \u0627\u0644\u0628\u062f\u0621", "\u0628\u0650\u0633\u0652\u0645\u0650",
    "\u0644\u0627", "\u05d1\u05e8\u05d0\u05e9\u05d9\u05ea", "\u05d1\u05bc\u05b0\u05e8\u05b5\u05d0", "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\u0e44\u0e17\u0e22", "\u10e5\u10d0\u10e0\u10d7", "\u16a0\u16a2\u16a6", "\U00020000", "\U0001f600", "\U0001f600\U0001f600",
    "a\U0001f600b", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd",
    "\u2764\ufe0f", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3", "\U0001f3f3\ufe0f\u200d\U0001f308", "\u2603 snow",
    "x\u2080 \u2264 \u221e", "\u2192\u2190", "\u20ac5", "\u00a35", "\u2014 dash \u2013",
]
EDGES = [
    "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\U0010fffe", "\ue000", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\U00010000",
    "\x7f", "\x01", "\x1f", "a\x1bb", "\u202eabc\u202c", "\u00ad", "\u034f", "\U000e0041", "\u0378",
]
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "a<|endoftext|>b", "a <|endoftext|> b",
    "<|im_start|>user\nWho art thou?<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|><|endoftext|>", "<think>\n\n</think>\n\n",
    "<|endoftext|", "|endoftext|>", "<|ENDOFTEXT|>", "< |endoftext|>", "<<|endoftext|>>", "<think>I</think>am", "<thin", "<th",
    "<|im_start|>\u00e9<|im_end|>e\u0301", "e<|im_end|>\u0301", "  <|im_end|>  ", "\n<|im_end|>\n", "'<think>s",
]
LONG = ["And it came to pass. " * 12, "a" * 300, "ab" * 100, "\n" * 40, "\u00e9" * 33, "=-" * 40, "the the the the the"]


def main():
    folder = output_folder(__doc__)
    tokenizer = Tokenizer.from_file(str(MODELS / "tiny-qwen3moe-gptq" / "tokenizer.json"))
    lines = []
    for text in ENGLISH + CONTRACTIONS + DIGITS + SPACE + ACCENTS + SCRIPTS + EDGES + SPECIAL + LONG:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"text": text, "ids": ids}
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        if decoded != text:                     # the normaliser changed it
            case["decoded"] = decoded
        plain = tokenizer.decode(ids, skip_special_tokens=True)
        if plain != decoded:
            case["decoded_without_special"] = plain
        lines.append(json.dumps(case))

    # Ids that no text encodes to: pieces of UTF-8 sequences. What cannot be decoded becomes U+FFFD.
    byte_id = {chr(b): tokenizer.token_to_id(chr(b)) for b in range(0xA1, 0x100) if tokenizer.token_to_id(chr(b)) is not None}
    pieces = [[byte_id["\u00e2"]], [byte_id["\u00c3"], byte_id["\u00c3"]], [byte_id["\u00ff"], byte_id["\u00fe"]],
              [byte_id["\u00f0"], *tokenizer.encode("a").ids], [*tokenizer.encode("a").ids, byte_id["\u00e2"]],
              tokenizer.encode("\u20ac").ids[:-1], tokenizer.encode("\U0001f600").ids[:-1],
              tokenizer.encode("\U0001f600").ids[1:], tokenizer.encode("\u20ac").ids[:-1] * 2]
    decode_lines = [json.dumps({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}) for ids in pieces]
    join = ",\n  ".join
    (folder / "tokenizer_cases.json").write_text(
        f'{{"cases": [\n  {join(lines)}\n],\n"decode_cases": [\n  {join(decode_lines)}\n]}}\n')
    print(f"{len(lines)} strings, {len(decode_lines)} decode-only cases")


if __name__ == "__main__":
    main()
