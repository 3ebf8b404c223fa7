import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

import jdk.jshell.Snippet;
import jdk.jshell.SourceCodeAnalysis;
import jdk.jshell.SourceCodeAnalysis.SnippetWrapper;

/** Formats exceptions as `java` does, with only the user's frames and the line numbers of the user's code. */
final class Tracebacks {
    private static final int MAX_FRAMES = 50;

    private final SourceCodeAnalysis analysis;
    private final Map<Snippet, Source> sources;
    /** The classes of programs: the newest execution that has defined them. */
    private final Map<String, Integer> programs = new HashMap<>();
    private final Reserve reserve = new Reserve();
    private int execution;

    /** {@code sources} is a map to which further snippets are added. */
    Tracebacks(SourceCodeAnalysis analysis, Map<Snippet, Source> sources) {
        this.analysis = analysis;
        this.sources = sources;
    }

    void begin(int execution) {
        this.execution = execution;
        reserve.renew();
    }

    /** The execution that has begun is of a program with these classes. */
    void beginProgram(Set<String> classes) {
        classes.forEach(name -> programs.put(name, execution));
    }

    Failure failure(Throwable thrown) {
        if (thrown instanceof OutOfMemoryError) {
            reserve.release();
        }
        String name = Names.unwrapped(thrown.getClass().getName());
        return new Failure(name, message(thrown), of(thrown), Causes.limitBehind(thrown));
    }

    /** The lines of an exception, with its causes and suppressed exceptions. */
    List<String> of(Throwable thrown) {
        List<String> lines = new ArrayList<>();
        add(thrown, "", "", lines, Collections.newSetFromMap(new IdentityHashMap<>()));
        return lines;
    }

    private void add(Throwable thrown, String indent, String caption, List<String> lines, Set<Throwable> printed) {
        if (!printed.add(thrown)) {
            lines.add(indent + caption + "[" + header(thrown) + ", see above]");
            return;
        }
        lines.add(indent + caption + header(thrown));
        for (String frame : frames(thrown.getStackTrace())) {
            lines.add(indent + "\t" + frame);
        }
        for (Throwable suppressed : thrown.getSuppressed()) {
            add(suppressed, indent + "\t", "Suppressed: ", lines, printed);
        }
        Throwable cause = cause(thrown);
        if (cause != null) {
            add(cause, indent, "Caused by: ", lines, printed);
        }
    }

    // The user's own exceptions may override the methods called below, and these may throw.

    private static String header(Throwable thrown) {
        try {
            return Names.unwrapped(thrown.toString());
        } catch (Throwable broken) {
            return Names.unwrapped(thrown.getClass().getName());
        }
    }

    private static String message(Throwable thrown) {
        try {
            return Names.unwrapped(String.valueOf(thrown.getMessage() == null ? "" : thrown.getMessage()));
        } catch (Throwable broken) {
            return "";
        }
    }

    private static Throwable cause(Throwable thrown) {
        try {
            return thrown.getCause();
        } catch (Throwable broken) {
            return null;
        }
    }

    /** The frames down to the lowest frame of user code; those below are the runner's. */
    private List<String> frames(StackTraceElement[] stack) {
        int end = stack.length;
        while (end > 0 && !isUserCode(stack[end - 1])) {
            end--;
        }
        List<String> frames = new ArrayList<>();
        for (StackTraceElement frame : List.of(stack).subList(0, end)) {
            if (frames.size() == MAX_FRAMES) {
                frames.add("... " + (end - MAX_FRAMES) + " more");
                break;
            }
            if (isUserCode(frame)) {
                // JShell may call one snippet through two methods; the runner's own call of `main` has no place.
                String place = "at " + place(frame);
                boolean repeated = place.startsWith("at line ") && !frames.isEmpty() && frames.getLast().equals(place);
                if (!repeated && !place.equals("at ")) {
                    frames.add(place);
                }
            } else if (!"app".equals(frame.getClassLoaderName())) { // not of the runner
                frames.add("at " + frame);
            }
        }
        return frames;
    }

    private boolean isUserCode(StackTraceElement frame) {
        return Names.isWrapped(frame.getClassName()) || programs.containsKey(frame.getClassName());
    }

    /** "Foo.bar (line 3)", or "line 3" for code outside of any method. */
    private String place(StackTraceElement frame) {
        String type = Names.unwrapped(frame.getClassName());
        String method = frame.getMethodName().replaceFirst("^lambda\\$.*", "lambda").replaceFirst("^do_it\\$.*", "");
        String where = type + (type.isEmpty() || method.isEmpty() ? "" : ".") + method;
        String line = line(frame);
        if (line.isEmpty() || where.isEmpty()) {
            return where + line;
        }
        return where + " (" + line + ")";
    }

    private String line(StackTraceElement frame) {
        Integer program = programs.get(frame.getClassName());
        if (program != null) {
            return frame.getLineNumber() < 0 ? "" : "line " + frame.getLineNumber() + age(program);
        }
        for (var entry : sources.entrySet()) {
            SnippetWrapper wrapper = analysis.wrapper(entry.getKey());
            String outer = wrapper.fullClassName();
            if (frame.getClassName().equals(outer) || frame.getClassName().startsWith(outer + "$")) {
                int offset = offset(wrapper, frame.getLineNumber());
                if (offset >= 0) {
                    Source source = entry.getValue();
                    return "line " + source.line(offset) + age(source.execution());
                }
            }
        }
        return "";
    }

    private String age(int defined) {
        return defined == execution ? "" : " of earlier code";
    }

    /** The offset in the snippet of a line of its wrapper; -1 if the wrapper has no such line. */
    private static int offset(SnippetWrapper wrapper, int line) {
        List<String> lines = wrapper.wrapped().lines().toList();
        if (line < 1 || line > lines.size()) {
            return -1;
        }
        String text = lines.get(line - 1).strip();
        int begin = lines.subList(0, line - 1).stream().mapToInt(before -> before.length() + 1).sum();
        return wrapper.wrappedToSourcePosition(wrapper.wrapped().indexOf(text, begin));
    }
}
