// Command protos prints the .proto files that ours import from elsewhere, from the
// descriptors compiled into our dependencies, so that no foreign file is committed and
// nothing is fetched when code is generated.
//
//	go run ./ci/protos DIR
package main

import (
	"fmt"
	"os"

	"github.com/jhump/protoreflect/desc" //lint:ignore SA1019 the printer takes this form only
	"github.com/jhump/protoreflect/desc/protoprint"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// foreign are the imported files outside google/protobuf, which every compiler has built in.
var foreign = []protoreflect.FileDescriptor{
	annotations.File_google_api_annotations_proto,
	annotations.File_google_api_http_proto,
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: protos DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "protos:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	files, err := desc.WrapFiles(foreign)
	if err != nil {
		return fmt.Errorf("reading descriptors: %w", err)
	}
	if err := new(protoprint.Printer).PrintProtosToFileSystem(files, dir); err != nil {
		return fmt.Errorf("printing into %s: %w", dir, err)
	}
	return nil
}
