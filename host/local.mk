# SPDX-License-Identifier: MIT
include host/formats/local.mk
