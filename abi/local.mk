# SPDX-License-Identifier: MIT
pkginclude_HEADERS += \
	abi/ferrum/types.h \
	abi/ferrum/util.h
