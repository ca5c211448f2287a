// Asks loragate about an adapter: `go run ./audit 127.0.0.1:50051 adapter.safetensors`.
// Ends with 0 if it may be loaded, with 1 if not, and with 2 if there is no decision.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	loragate "loragate.dev/go/loragate/v1"
)

const timeout = 60 * time.Second

// security is TLS with the authorities of LORAGATE_CA, a PEM file, or none without it.
func security() (grpc.DialOption, error) {
	file := os.Getenv("LORAGATE_CA")
	if file == "" {
		return grpc.WithInsecure(), nil
	}
	tls, err := credentials.NewClientTLSFromFile(file, "")
	return grpc.WithTransportCredentials(tls), err
}

func ask(address, file string) (*loragate.Verdict, error) {
	adapter, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	secure, err := security()
	if err != nil {
		return nil, err
	}
	connection, err := grpc.Dial(address, secure)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "loragate-inline-bytes", strconv.Itoa(len(adapter)))
	if token := os.Getenv("LORAGATE_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	answer, err := loragate.NewAuditServiceClient(connection).Audit(ctx, &loragate.AuditRequest{
		Adapters: []*loragate.AdapterReference{{
			Source:       &loragate.AdapterReference_InlineBytes{InlineBytes: adapter},
			DeclaredName: filepath.Base(file),
		}},
	})
	if err == nil && answer.GetVerdict() == nil {
		return nil, status.Error(codes.Internal, "the answer holds no verdict")
	}
	return answer.GetVerdict(), err
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: audit HOST:PORT FILE")
		os.Exit(2)
	}
	verdict, err := ask(os.Args[1], os.Args[2])
	if err != nil {
		told := status.Convert(err)
		fmt.Fprintf(os.Stderr, "no decision: %s: %s\n", told.Code(), told.Message())
		os.Exit(2)
	}
	fmt.Println(verdict.GetVerdict(), verdict.GetDecisionId())
	for _, reason := range verdict.GetReasons() {
		fmt.Println(" ", reason.GetMessage())
	}
	// Anything but ALLOW, kinds that later versions may add included, is a no; so is a verdict that
	// does not bind, such as that of a dry run.
	if verdict.GetVerdict() != loragate.VerdictKind_VERDICT_KIND_ALLOW || !verdict.GetBinding() {
		os.Exit(1)
	}
}
