import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import com.google.gson.stream.JsonWriter;

/** The agent's two FIFOs: one JSON object per line each way. */
final class Channel implements Interpreter.Reports {
    /** A request for an execution; {@code cwd} may be null. */
    record Request(String code, Map<String, String> env, String cwd, String mode) { }

    private final BufferedReader in;
    private final OutputStream out;

    /** Opens the FIFO for reading first, because the agent opens the other end of that one first too. */
    Channel(String in, String out) throws IOException {
        this.in = new BufferedReader(new InputStreamReader(new FileInputStream(in), StandardCharsets.UTF_8));
        this.out = new FileOutputStream(out);
    }

    /** Waits for the next request; null when the agent has closed its end. */
    Request next() throws IOException {
        String line = in.readLine();
        return line == null ? null : parse(line);
    }

    private static Request parse(String line) throws IOException {
        String code = "";
        String cwd = null;
        String mode = "script";
        var env = new LinkedHashMap<String, String>();
        var json = new JsonReader(new StringReader(line));
        json.beginObject();
        while (json.hasNext()) {
            String name = json.nextName();
            if (json.peek() == JsonToken.NULL) {
                json.nextNull();
                continue;
            }
            switch (name) {
                case "code" -> code = json.nextString();
                case "cwd" -> cwd = json.nextString();
                case "mode" -> mode = json.nextString();
                case "env" -> {
                    json.beginObject();
                    while (json.hasNext()) {
                        env.put(json.nextName(), json.nextString());
                    }
                    json.endObject();
                }
                default -> json.skipValue();
            }
        }
        return new Request(code, env, cwd, mode);
    }

    void ready() throws IOException {
        send(json -> json.name("ready").beginObject().endObject());
    }

    @Override
    public void result(String text) throws IOException {
        send(json -> {
            json.name("result").beginObject().name("main").value(true);
            json.name("data").beginObject().name("text/plain").value(text).endObject();
            json.endObject();
        });
    }

    @Override
    public void ending(Failure failure) throws IOException {
        finish("ending", failure);
    }

    /** Ends an execution; {@code failure} is null when the code did not fail. */
    void done(Failure failure) throws IOException {
        finish("done", failure);
    }

    private void finish(String kind, Failure failure) throws IOException {
        send(json -> {
            json.name(kind).beginObject();
            if (failure != null) {
                json.name("error").beginObject();
                json.name("name").value(failure.name()).name("value").value(failure.value());
                json.name("traceback").value(String.join("\n", failure.traceback())).endObject();
            }
            if (failure != null && failure.cause() != null) {
                json.name("cause").value(failure.cause());
            }
            json.endObject();
        });
    }

    private interface Body {
        void write(JsonWriter json) throws IOException;
    }

    private void send(Body body) throws IOException {
        var line = new StringWriter();
        var json = new JsonWriter(line);
        json.beginObject();
        body.write(json);
        json.endObject();
        // `getBytes` replaces lone surrogates, so that the line is always valid UTF-8.
        out.write(line.append('\n').toString().getBytes(StandardCharsets.UTF_8));
    }
}
