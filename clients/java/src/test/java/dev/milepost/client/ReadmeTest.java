package dev.milepost.client;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Runs the programs of the README, exactly as they stand there. */
class ReadmeTest {
  private static final Pattern PROGRAM =
      Pattern.compile("```java\n(// (\\w+\\.java)\n.*?)```", Pattern.DOTALL);

  /** The exit code of a program that SIGTERM ends. */
  private static final int TERMINATED = 143;

  @TempDir private Path folder;

  private Map<String, Path> programs() throws Exception {
    Map<String, Path> programs = new HashMap<>();
    Path readme = Service.root().resolve("clients/java/README.md");
    Matcher found = PROGRAM.matcher(Files.readString(readme));
    while (found.find()) {
      programs.put(
          found.group(2), Files.writeString(folder.resolve(found.group(2)), found.group(1)));
    }
    return programs;
  }

  private static Process start(Path program, Service service, String role) throws Exception {
    String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
    String classes = System.getProperty("java.class.path");
    ProcessBuilder builder = new ProcessBuilder(java, "-cp", classes, program.toString());
    builder.environment().put("MILEPOST_ADDRESS", service.address());
    builder.environment().put("MILEPOST_API_KEY", service.key(role));
    return builder.redirectError(ProcessBuilder.Redirect.INHERIT).start();
  }

  @Test
  void callerAndWorker() throws Exception {
    Map<String, Path> programs = programs();
    try (Service service = new Service()) {
      Process worker = start(programs.get("Encoder.java"), service, "WORKER");
      Process caller = start(programs.get("Caller.java"), service, "CALLER");
      String output = new String(caller.getInputStream().readAllBytes(), UTF_8);
      assertEquals(0, caller.waitFor(), output);
      assertTrue(output.contains("PROCESSING"), output);
      assertTrue(output.endsWith("frames: 1200\n"), output);
      worker.destroy();
      assertTrue(worker.waitFor(20, TimeUnit.SECONDS));
      assertEquals(TERMINATED, worker.exitValue());
    }
  }
}
