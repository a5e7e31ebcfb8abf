// Package tig stands in for the test framework that nerdctl's command imports and that no module proxy carries.
package tig

import "testing"

type T = testing.TB
