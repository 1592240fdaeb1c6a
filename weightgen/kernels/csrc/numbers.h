// Kinds of values and the casts between them: the same rounding, to nearest and ties to even, on the CPU and the GPU.
#pragma once

#include <cstring>
#include <type_traits>

#include "segments.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace weightgen {

using Bits = std::uint32_t;

struct Half { std::uint16_t bits; };
struct Brain { std::uint16_t bits; };

WEIGHTGEN_BOTH float float_of(Bits bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

WEIGHTGEN_BOTH Bits bits_of(float value) {
  Bits bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

WEIGHTGEN_BOTH double widen(double value) { return value; }
WEIGHTGEN_BOTH float widen(float value) { return value; }
WEIGHTGEN_BOTH float widen(std::uint8_t value) { return value; }
WEIGHTGEN_BOTH float widen(Brain value) { return float_of(Bits(value.bits) << 16); }

WEIGHTGEN_BOTH float widen(Half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  const Bits sign = Bits(value.bits & 0x8000u) << 16, exponent = value.bits >> 10 & 31u, fraction = value.bits & 1023u;
  if (exponent == 31) return float_of(sign | 0x7f800000u | fraction << 13);
  if (exponent) return float_of(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = float(fraction) * 0x1p-24f;  // exact
  return float_of(sign | bits_of(small));
#endif
}

WEIGHTGEN_BOTH Half half_of(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  const Bits bits = bits_of(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return {std::uint16_t(sign | 0x7e00u)};
  if (size >= 0x47800000u) return {std::uint16_t(sign | 0x7c00u)};  // 65536 and more
  if (size < 0x38800000u) {
    // Below the least normal half, adding 0.5 leaves its fraction, rounded, in the lowest bits.
    return {std::uint16_t(sign | (bits_of(float_of(size) + 0.5f) - bits_of(0.5f)))};
  }
  // A carry out of the fraction goes into the exponent, and from the largest number to infinity.
  return {std::uint16_t(sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13)};
#endif
}

// The upper half of a float, rounded; for one number or for several in a vector of Bits.
template <typename B>
WEIGHTGEN_BOTH B brain_bits(B bits) {
  const B rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, none = B{} + 0x7fc0u;
  return (bits & 0x7fffffffu) > 0x7f800000u ? none : rounded;
}

WEIGHTGEN_BOTH Brain brain_of(float value) { return {std::uint16_t(brain_bits(bits_of(value)))}; }

// A value in another kind; what goes from double to half goes through float, as in torch.
template <typename To, typename From>
WEIGHTGEN_BOTH To cast(From value) {
  if constexpr (std::is_same_v<To, From>) return value;
  else if constexpr (std::is_same_v<To, Half>) return half_of(static_cast<float>(widen(value)));
  else if constexpr (std::is_same_v<To, Brain>) return brain_of(static_cast<float>(widen(value)));
  else return static_cast<To>(widen(value));
}

// What values of a kind of tokens are computed in.
template <typename T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Whether values of one type may become those of another: bytes are only moved.
template <typename T, typename S>
constexpr bool MEET = std::is_same_v<T, std::uint8_t> == std::is_same_v<S, std::uint8_t>;

// Calls `body` with a value of the type that a kind stands for; `body` may be for the CPU alone.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable
#endif
template <typename Body>
WEIGHTGEN_BOTH void with_kind(Index kind, Body&& body) {
  switch (kind) {
    case FLOAT32: return body(float{});
    case FLOAT64: return body(double{});
    case FLOAT16: return body(Half{});
    case BFLOAT16: return body(Brain{});
    default: return body(std::uint8_t{});
  }
}

}  // namespace weightgen
