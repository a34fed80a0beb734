# SPDX-License-Identifier: MIT
dist_doc_DATA += docs/writing-a-backend.md
