//go:build programs

// Package programs keeps the program built from here among this module's requirements.
package programs

import _ "sigs.k8s.io/cri-tools/cmd/crictl"
