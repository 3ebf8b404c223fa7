/** A part of the code of one execution, with its position, so that offsets can be shown as lines. */
record Source(int execution, String code, int start) {
    /** The line number of an offset in this part, counted from 1. */
    int line(long offset) {
        return 1 + (int) code.substring(0, position(offset)).chars().filter(c -> c == '\n').count();
    }

    /** That line and, below it, a caret at the offset. */
    String[] quote(long offset) {
        int position = position(offset);
        int begin = code.lastIndexOf('\n', position - 1) + 1;
        int end = code.indexOf('\n', position);
        String line = code.substring(begin, end < 0 ? code.length() : end);
        // Tabs are kept, so that the caret is under its character.
        String indent = code.substring(begin, position).replaceAll("[^\t]", " ");
        return new String[] {line, indent + "^"};
    }

    private int position(long offset) {
        return Math.clamp(start + offset, 0, code.length());
    }
}
