package dev.milepost.client;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.milepost.v1.CreateOperationRequest;
import dev.milepost.v1.CreateOperationResponse;
import dev.milepost.v1.OperationServiceGrpc;
import dev.milepost.v1.StreamProgressRequest;
import dev.milepost.v1.StreamProgressResponse;
import dev.milepost.v1.WorkerServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerInterceptors;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Function;

/** Answers as a test says, where a real service cannot be made to. */
final class FakeService implements AutoCloseable {
  /** The headers of every call. */
  final List<Metadata> headers = new CopyOnWriteArrayList<>();

  Function<CreateOperationRequest, CreateOperationResponse> create;
  Function<StreamObserver<StreamProgressResponse>, StreamObserver<StreamProgressRequest>> stream;

  private final Server server;

  FakeService() throws IOException {
    server =
        Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
            .addService(ServerInterceptors.intercept(new Operations(), new Headers()))
            .addService(ServerInterceptors.intercept(new Workers(), new Headers()))
            .build()
            .start();
  }

  MilepostBuilder client() {
    return Milepost.builder("127.0.0.1:" + server.getPort());
  }

  static StatusRuntimeException refusal(Code code, String reason, Duration pause) {
    return StatusProto.toStatusRuntimeException(
        com.google.rpc.Status.newBuilder()
            .setCode(code.value())
            .setMessage("refused")
            .addDetails(
                Any.pack(ErrorInfo.newBuilder().setDomain("milepost").setReason(reason).build()))
            .addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(Times.to(pause)).build()))
            .build());
  }

  @Override
  public void close() {
    server.shutdownNow();
  }

  private final class Headers implements ServerInterceptor {
    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, R> call, Metadata metadata, ServerCallHandler<Q, R> next) {
      headers.add(metadata);
      return next.startCall(call, metadata);
    }
  }

  private final class Operations extends OperationServiceGrpc.OperationServiceImplBase {
    @Override
    public void createOperation(
        CreateOperationRequest request, StreamObserver<CreateOperationResponse> answer) {
      try {
        answer.onNext(create.apply(request));
        answer.onCompleted();
      } catch (StatusRuntimeException refusal) {
        answer.onError(refusal);
      }
    }
  }

  private final class Workers extends WorkerServiceGrpc.WorkerServiceImplBase {
    @Override
    public StreamObserver<StreamProgressRequest> streamProgress(
        StreamObserver<StreamProgressResponse> answers) {
      return stream.apply(answers);
    }
  }
}
