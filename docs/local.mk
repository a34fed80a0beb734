# SPDX-License-Identifier: MIT
dist_doc_DATA += docs/abi-policy.md docs/reliability.md docs/security.md \
	docs/performance.md docs/performance-roofline.svg docs/writing-a-backend.md
EXTRA_DIST += docs/examples/plugin/sample.c
