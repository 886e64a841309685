// The client of gax.

import com.google.api.gax.core.NoCredentialsProvider;
import com.google.api.gax.grpc.GrpcCallSettings;
import com.google.api.gax.grpc.GrpcCallableFactory;
import com.google.api.gax.grpc.InstantiatingGrpcChannelProvider;
import com.google.api.gax.grpc.ProtoOperationTransformers;
import com.google.api.gax.longrunning.OperationFuture;
import com.google.api.gax.longrunning.OperationSnapshot;
import com.google.api.gax.longrunning.OperationTimedPollAlgorithm;
import com.google.api.gax.retrying.RetrySettings;
import com.google.api.gax.rpc.ApiException;
import com.google.api.gax.rpc.ClientContext;
import com.google.api.gax.rpc.OperationCallSettings;
import com.google.api.gax.rpc.OperationCallable;
import com.google.api.gax.rpc.UnaryCallSettings;
import com.google.gson.Gson;
import com.google.longrunning.GetOperationRequest;
import com.google.longrunning.Operation;
import com.google.longrunning.OperationsClient;
import com.google.longrunning.OperationsGrpc;
import com.google.longrunning.OperationsSettings;
import com.google.longrunning.stub.GrpcOperationsStub;
import com.google.longrunning.stub.OperationsStubSettings;
import com.google.protobuf.Any;
import com.google.protobuf.Struct;
import com.google.protobuf.util.JsonFormat;
import dev.milepost.v1.OperationMetadata;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;

final class Stock {
  static InstantiatingGrpcChannelProvider channels(String address, String key, String holdS) {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + key);
    headers.put(Metadata.Key.of("prefer", Metadata.ASCII_STRING_MARSHALLER), "wait=" + holdS);
    return InstantiatingGrpcChannelProvider.newBuilder()
        .setEndpoint(address)
        .setChannelConfigurator(ManagedChannelBuilder::usePlaintext)
        .setInterceptorProvider(() -> List.of(MetadataUtils.newAttachHeadersInterceptor(headers)))
        .build();
  }

  // A future needs a call that starts it. Here that is GetOperation, about an operation that exists.
  static OperationCallable<GetOperationRequest, Struct, OperationMetadata> futures(
      InstantiatingGrpcChannelProvider channels, RetrySettings pauses) throws Exception {
    OperationsStubSettings settings =
        OperationsStubSettings.newBuilder()
            .setTransportChannelProvider(channels)
            .setCredentialsProvider(NoCredentialsProvider.create())
            .build();
    ClientContext context = ClientContext.create(settings);
    return GrpcCallableFactory.createOperationCallable(
        GrpcCallSettings.create(OperationsGrpc.getGetOperationMethod()),
        OperationCallSettings.<GetOperationRequest, Struct, OperationMetadata>newBuilder()
            .setInitialCallSettings(
                UnaryCallSettings.<GetOperationRequest, OperationSnapshot>newUnaryCallSettingsBuilder().build())
            .setResponseTransformer(ProtoOperationTransformers.ResponseTransformer.create(Struct.class))
            .setMetadataTransformer(ProtoOperationTransformers.MetadataTransformer.create(OperationMetadata.class))
            .setPollingAlgorithm(OperationTimedPollAlgorithm.create(pauses))
            .build(),
        context,
        GrpcOperationsStub.create(context));
  }

  static final RetrySettings PAUSES =
      RetrySettings.newBuilder()
          .setInitialRetryDelayDuration(Duration.ofMillis(500))
          .setRetryDelayMultiplier(1.5)
          .setMaxRetryDelayDuration(Duration.ofSeconds(5))
          .setTotalTimeoutDuration(Duration.ofMinutes(5))
          .build();

  static void show(Map<String, Object> line) {
    System.out.println(new Gson().toJson(line));
  }

  static Map<String, Object> state(OperationMetadata metadata) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("status", metadata.getStatus().name());
    line.put("progress", metadata.getProgress());
    return line;
  }

  static void follow(
      OperationFuture<Struct, OperationMetadata> future, OperationsClient client, String name, boolean cancel)
      throws Exception {
    OperationSnapshot first = future.getInitialFuture().get();
    if (!first.isDone()) {
      show(state(((Any) first.getMetadata()).unpack(OperationMetadata.class)));
    }
    if (cancel) {
      client.cancelOperation(name);
      show(Map.of("cancel", true));
    }
    Struct value = future.get();
    Map<String, Object> line = state(future.getMetadata().get());
    line.put("value", new Gson().fromJson(JsonFormat.printer().print(value), Map.class));
    show(line);
  }

  static void run(String address, String verb, String name) throws Exception {
    InstantiatingGrpcChannelProvider channels =
        channels(address, System.getenv("MILEPOST_API_KEY"), System.getenv("HOLD_S"));
    OperationsClient client =
        OperationsClient.create(
            OperationsSettings.newBuilder()
                .setTransportChannelProvider(channels)
                .setCredentialsProvider(NoCredentialsProvider.create())
                .build());
    switch (verb) {
      case "delete" -> {
        client.deleteOperation(name);
        show(Map.of("deleted", true));
      }
      case "list" -> {
        List<String> names = new ArrayList<>();
        for (Operation found : client.listOperations("operations", "done=true").iterateAll()) {
          names.add(found.getName());
        }
        show(Map.of("names", names));
      }
      default -> {
        for (String each : name.split(",")) { // one after the other
          GetOperationRequest request = GetOperationRequest.newBuilder().setName(each).build();
          follow(futures(channels, PAUSES).futureCall(request), client, each, verb.equals("cancel"));
        }
      }
    }
  }

  static void fail(Throwable error) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("error", error.getClass().getSimpleName());
    if (error instanceof ApiException refused) {
      line.put("code", refused.getStatusCode().getCode().ordinal());
    }
    line.put("message", String.valueOf(error.getMessage()));
    show(line);
  }

  public static void main(String[] words) throws Exception {
    try {
      run(words[0], words[1], words.length > 2 ? words[2] : "");
    } catch (ExecutionException failure) {
      fail(failure.getCause());
    } catch (RuntimeException failure) {
      fail(failure);
    }
    System.exit(0); // channels keep the process alive
  }
}
