package dev.milepost.client;

/** The options of a delete. */
public class DeleteOptions extends ChangeOptions<DeleteOptions> {
  /** Creates options without a value. */
  public DeleteOptions() {}

  @Override
  DeleteOptions self() {
    return this;
  }
}
