import com.google.protobuf.ByteString;
import dev.loragate.v1.AdapterReference;
import dev.loragate.v1.AuditRequest;
import dev.loragate.v1.AuditResponse;
import dev.loragate.v1.AuditServiceGrpc;
import dev.loragate.v1.Verdict;
import dev.loragate.v1.VerdictKind;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/**
 * Asks loragate about an adapter: {@code java Audit 127.0.0.1:50051 adapter.safetensors}.
 *
 * <p>Ends with 0 if it may be loaded, with 1 if not, and with 2 if there is no decision.
 */
public final class Audit {
    private static final int TIMEOUT_S = 60;

    public static void main(String[] words) {
        if (words.length != 2) {
            System.err.println("usage: Audit HOST:PORT FILE");
            System.exit(2);
        }
        int status = 2;
        try {
            status = tell(ask(words[0], Path.of(words[1])));
        } catch (StatusRuntimeException error) {
            System.err.printf(
                    "no decision: %s: %s%n",
                    error.getStatus().getCode(), error.getStatus().getDescription());
        } catch (Throwable error) {
            System.err.printf("no decision: %s%n", error);
        }
        System.exit(status);
    }

    /** TLS with the authorities of LORAGATE_CA, a PEM file, or none without it. */
    private static ManagedChannel connect(String address) throws IOException {
        String ca = setting("LORAGATE_CA");
        ChannelCredentials credentials =
                ca == null
                        ? InsecureChannelCredentials.create()
                        : TlsChannelCredentials.newBuilder().trustManager(new File(ca)).build();
        return Grpc.newChannelBuilder(address, credentials).build();
    }

    private static Verdict ask(String address, Path file) throws IOException {
        byte[] adapter = Files.readAllBytes(file);
        Metadata metadata = new Metadata();
        put(metadata, "loragate-inline-bytes", Integer.toString(adapter.length));
        String token = setting("LORAGATE_TOKEN");
        if (token != null) {
            put(metadata, "authorization", "Bearer " + token);
        }
        AuditRequest request =
                AuditRequest.newBuilder()
                        .addAdapters(
                                AdapterReference.newBuilder()
                                        .setInlineBytes(ByteString.copyFrom(adapter))
                                        .setDeclaredName(file.getFileName().toString()))
                        .build();
        ManagedChannel channel = connect(address);
        try {
            AuditResponse answer =
                    AuditServiceGrpc.newBlockingStub(channel)
                            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata))
                            .withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS)
                            .audit(request);
            if (!answer.hasVerdict()) {
                throw new IOException("The answer holds no verdict.");
            }
            return answer.getVerdict();
        } finally {
            channel.shutdownNow();
        }
    }

    /** The value of a variable of the environment; null where it is empty. */
    private static String setting(String name) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? null : value;
    }

    private static void put(Metadata metadata, String name, String value) {
        metadata.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
    }

    private static int tell(Verdict verdict) {
        System.out.printf("%s %s%n", verdict.getVerdict(), verdict.getDecisionId());
        verdict.getReasonsList().forEach(reason -> System.out.println("  " + reason.getMessage()));
        // Anything but ALLOW, kinds that later versions may add included, is a no; so is a verdict
        // that does not bind, such as that of a dry run.
        boolean yes = verdict.getVerdict() == VerdictKind.VERDICT_KIND_ALLOW;
        return yes && verdict.getBinding() ? 0 : 1;
    }

    private Audit() {}
}
