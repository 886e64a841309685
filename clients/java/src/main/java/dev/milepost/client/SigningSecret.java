package dev.milepost.client;

import java.time.Instant;
import java.util.Optional;

/**
 * A secret that signs your webhooks.
 *
 * @param value the secret itself, whsec_…; keep it as safe as a password
 * @param createTime the time of its creation
 * @param expireTime the time at which it stops signing; only after a rotation
 */
public record SigningSecret(String value, Instant createTime, Optional<Instant> expireTime) {
  static SigningSecret of(dev.milepost.v1.SigningSecret message) {
    return new SigningSecret(
        message.getValue(),
        Times.of(message.getCreateTime()),
        message.hasExpireTime()
            ? Optional.of(Times.of(message.getExpireTime()))
            : Optional.empty());
  }

  /** {@return everything but the secret} */
  @Override
  public String toString() {
    return "SigningSecret[createTime=" + createTime + "]";
  }
}
