// Prints the descriptor of containerd's content API, as the generated Go code of containerd carries it, in protobuf's JSON form.
package main

import (
	"fmt"
	"os"

	api "github.com/containerd/containerd/api/services/content/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protodesc"
)

func main() {
	file := protodesc.ToFileDescriptorProto(api.File_services_content_v1_content_proto)
	text, err := protojson.Marshal(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(text))
}
