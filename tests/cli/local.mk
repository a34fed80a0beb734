# SPDX-License-Identifier: MIT
TESTS += tests/cli/cli.sh
dist_check_SCRIPTS += tests/cli/cli.sh
