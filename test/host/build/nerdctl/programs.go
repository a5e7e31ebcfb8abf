//go:build programs

// Package programs keeps the program built from here among this module's requirements.
package programs

import _ "github.com/containerd/nerdctl/v2/cmd/nerdctl"
